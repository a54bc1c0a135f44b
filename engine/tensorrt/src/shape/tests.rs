#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn shape(sizes: &[i64]) -> Shape {
    Shape::new(sizes).unwrap()
}

#[test]
fn a_shape_has_at_most_eight_sizes() {
    assert_eq!(shape(&[2, 3]).sizes(), [2, 3]);
    assert_eq!(shape(&[]).elements(), Some(1));
    assert!(Shape::new(&[1; 8]).is_some());
    assert!(Shape::new(&[1; 9]).is_none());
    assert!(Shape::new(&[1; 300]).is_none());
}

#[test]
fn what_is_not_known_or_beyond_counting_has_no_elements() {
    assert_eq!(shape(&[2, 3, 4]).elements(), Some(24));
    assert_eq!(shape(&[2, 0]).elements(), Some(0));
    assert_eq!(shape(&[2, -1]).elements(), None);
    assert_eq!(shape(&[i64::MAX, 3]).elements(), None);
    assert_eq!(ElementType::F32.bytes(u64::MAX), None);
    assert_eq!(ElementType::I4.bytes(3), Some(2));
    assert_eq!(ElementType::BF16.bytes(3), Some(6));
}

#[test]
fn a_shape_lies_within_others_of_its_rank() {
    let (low, high) = (shape(&[1, 4]), shape(&[8, 4]));
    assert!(shape(&[1, 4]).within(&low, &high));
    assert!(shape(&[8, 4]).within(&low, &high));
    for outside in [&[9, 4][..], &[0, 4], &[1, 5], &[1], &[1, 4, 1]] {
        assert!(!shape(outside).within(&low, &high), "{outside:?}");
    }
}

#[test]
fn a_pattern_leaves_open_what_is_negative() {
    let pattern = shape(&[-1, 4]);
    assert!(shape(&[7, 4]).fits(&pattern));
    assert!(!shape(&[7, 5]).fits(&pattern));
    assert!(!shape(&[7]).fits(&pattern));
    assert!(!pattern.is_known());
}
