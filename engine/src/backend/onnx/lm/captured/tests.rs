use super::sizes;

#[test]
fn sizes_are_powers_of_two_and_the_whole() {
    assert_eq!(sizes(1), [1]);
    assert_eq!(sizes(8), [1, 2, 4, 8]);
    assert_eq!(sizes(48), [1, 2, 4, 8, 16, 32, 48]);
}

#[test]
fn of_many_sizes_the_small_ones_go() {
    let sizes = sizes(4096);
    assert_eq!(sizes.len(), super::MOST);
    assert_eq!((sizes[0], sizes[11]), (2, 4096));
}
