use super::*;

/// Three rows of two elements; the third is padding.
const HIDDEN: [f32; 6] = [1.0, -4.0, 3.0, -2.0, 100.0, 100.0];

#[test]
fn padding_never_counts() {
    let pool = |pooling| pool(pooling, &HIDDEN, 2, 2);
    assert_eq!(pool(Pooling::Mean), [2.0, -3.0]);
    assert_eq!(pool(Pooling::Cls), [1.0, -4.0]);
    assert_eq!(pool(Pooling::LastToken), [3.0, -2.0]);
    assert_eq!(pool(Pooling::Max), [3.0, -2.0]);
    let root = 2.0f32.sqrt();
    let expected = [4.0 / root, -6.0 / root];
    for (got, expected) in pool(Pooling::MeanSqrtLength).iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6);
    }
}

#[test]
fn normalised_vectors_have_length_one_and_zero_stays() {
    let mut vector = vec![3.0, 4.0];
    normalize(&mut vector);
    assert_eq!(vector, [0.6, 0.8]);
    let mut zero = vec![0.0; 3];
    normalize(&mut zero);
    assert_eq!(zero, [0.0; 3]);
}

#[test]
fn cosine_measures_the_angle() {
    assert!((cosine(&[1.0, 2.0], &[2.0, 4.0]) - 1.0).abs() < 1e-12);
    assert_eq!(cosine(&[1.0, 0.0], &[0.0, 5.0]), 0.0);
    assert_eq!(cosine(&[1.0, 0.0], &[0.0, 0.0]), 0.0);
}

#[test]
fn probabilities_are_softmax_or_logistic() {
    assert_eq!(probabilities(&[0.0]), [0.5]);
    assert_eq!(probabilities(&[7.0, 7.0]), [0.5, 0.5]);
    let three = probabilities(&[1000.0, 999.0, -1000.0]);
    assert!((three[0] - 0.731_058_6).abs() < 1e-6);
    assert!((three.iter().sum::<f32>() - 1.0).abs() < 1e-6);
}
