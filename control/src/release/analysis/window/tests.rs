use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn it_counts_what_a_list_would(
        steps in prop::collection::vec((0_i64..4_000, any::<bool>()), 1..200),
        buckets in 1_usize..20,
    ) {
        let mut window = Window::new(Duration::from_millis(1_000), buckets);
        let mut list = Vec::new();
        let mut now = 0;
        for (step, event) in steps {
            now += step;
            window.add(Timestamp::from_micros(now * 1_000), event);
            list.push((now / 1_000, event));
            let oldest = now / 1_000 - buckets as i64 + 1;
            let recent = list.iter().filter(|(second, _)| *second >= oldest);
            let mut expected = Count::default();
            recent.for_each(|(_, event)| expected.add(*event));
            prop_assert_eq!(window.count(Timestamp::from_micros(now * 1_000)), expected);
        }
    }
}

#[test]
fn what_comes_late_is_counted_now() {
    let mut window = Window::new(Duration::from_secs(1), 2);
    window.add(Timestamp::from_micros(10_000_000), true);
    window.add(Timestamp::from_micros(5_000_000), true);
    let count = window.count(Timestamp::from_micros(11_000_000));
    assert_eq!(count.events, 2);
    assert_eq!(count.ratio(), 1.0);
    assert_eq!(
        window.count(Timestamp::from_micros(12_000_000)),
        Count::default()
    );
}
