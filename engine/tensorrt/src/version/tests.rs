use super::*;

#[test]
fn numbers_of_every_age_are_read() {
    assert_eq!(Version::from_number(110_400), Some(Version::new(11, 4, 0)));
    assert_eq!(Version::from_number(100_903), Some(Version::new(10, 9, 3)));
    assert_eq!(Version::from_number(10_701), Some(Version::new(1, 7, 1)));
    assert_eq!(Version::from_number(8_601), Some(Version::new(8, 6, 1)));
    assert_eq!(Version::from_number(0), None);
    assert_eq!(Version::from_number(-1), None);
}

#[test]
fn a_later_minor_serves_and_an_earlier_or_another_major_does_not() {
    let built = Version::new(11, 4, 0);
    assert!(Version::new(11, 4, 0).serves(built));
    assert!(Version::new(11, 9, 2).serves(built));
    assert!(!Version::new(11, 3, 9).serves(built));
    assert!(!Version::new(12, 4, 0).serves(built));
    assert!(!Version::new(10, 9, 0).serves(built));
}

#[test]
fn a_version_is_read_as_it_is_written() {
    let version = Version::new(11, 4, 0);
    assert_eq!(version.to_string().parse(), Ok(version));
    for bad in ["", "11", "11.4", "11.4.x", "11.4.0.1"] {
        assert!(bad.parse::<Version>().is_err(), "{bad}");
    }
}
