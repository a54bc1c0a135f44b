//! Our recorder behind the `metrics` facade. `metrics-exporter-prometheus` brings one too,
//! and the code that records could be pointed at it without a change; docs/ARCHITECTURE.md
//! says what it costs, and `cargo bench -p sluice-gateway` shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use indexmap::IndexMap;
use metrics::{Counter, Gauge, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_util::registry::{Registry, Storage};
use parking_lot::RwLock;

use super::exposition::{Exposition, Kind, Value};
use super::histogram::{Buckets, Histogram};

/// Bounds of the two kinds of histograms.
#[derive(Debug, Clone)]
pub(super) struct Bounds {
    pub(super) seconds: Arc<Buckets>,
    pub(super) tokens: Arc<Buckets>,
}

/// What all series of one name have in common.
#[derive(Debug)]
struct Family {
    kind: Kind,
    unit: Option<Unit>,
    help: SharedString,
}

/// By name, in the order of description.
type Families = Arc<RwLock<IndexMap<KeyName, Family>>>;

/// Every registered series of one gateway.
pub(super) struct Series {
    registry: Registry<Key, Cells>,
    families: Families,
}

impl Series {
    pub(super) fn new(bounds: Bounds) -> Self {
        let families = Families::default();
        let cells = Cells {
            bounds,
            families: Arc::clone(&families),
        };
        Self {
            registry: Registry::new(cells),
            families,
        }
    }

    /// Forgets the series whose key is not kept; handles that are still held count on unseen.
    pub(super) fn retain(&self, keep: impl Fn(&Key) -> bool) {
        self.registry.retain_counters(|key, _| keep(key));
        self.registry.retain_gauges(|key, _| keep(key));
        self.registry.retain_histograms(|key, _| keep(key));
    }

    /// What all series hold now, histograms without a value left out.
    pub(super) fn collect(&self, into: &mut Exposition) {
        for (name, family) in &*self.families.read() {
            into.declare(name.as_str(), family.kind, &family.help);
        }
        let mut add = |key: &Key, value| {
            into.push(key.name(), key.labels().cloned().collect(), value);
        };
        self.registry.visit_counters(|key, count| {
            add(key, Value::Number(count.load(Relaxed) as f64));
        });
        self.registry.visit_gauges(|key, bits| {
            add(key, Value::Number(f64::from_bits(bits.load(Relaxed))));
        });
        self.registry.visit_histograms(|key, histogram| {
            if let Some(held) = histogram.snapshot() {
                add(key, Value::Histogram(Arc::clone(&histogram.buckets), held));
            }
        });
    }

    fn describe(&self, name: KeyName, kind: Kind, unit: Option<Unit>, help: SharedString) {
        self.families
            .write()
            .entry(name)
            .or_insert(Family { kind, unit, help });
    }
}

impl Recorder for Series {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(name, Kind::Counter, unit, help);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(name, Kind::Gauge, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe(name, Kind::Histogram, unit, help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.registry
            .get_or_create_counter(key, |cell| Counter::from_arc(Arc::clone(cell)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.registry
            .get_or_create_gauge(key, |cell| Gauge::from_arc(Arc::clone(cell)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        self.registry
            .get_or_create_histogram(key, |cell| metrics::Histogram::from_arc(Arc::clone(cell)))
    }
}

/// Makes the atomics behind the handles.
struct Cells {
    bounds: Bounds,
    families: Families,
}

impl Storage<Key> for Cells {
    type Counter = Arc<AtomicU64>;
    type Gauge = Arc<AtomicU64>;
    type Histogram = Arc<Histogram>;

    fn counter(&self, _: &Key) -> Self::Counter {
        Arc::default()
    }

    fn gauge(&self, _: &Key) -> Self::Gauge {
        Arc::default()
    }

    /// What was described to be in seconds has the bounds for seconds, all else those for counts.
    fn histogram(&self, key: &Key) -> Self::Histogram {
        let families = self.families.read();
        let unit = families.get(key.name()).and_then(|family| family.unit);
        Arc::new(Histogram::new(match unit {
            Some(Unit::Seconds) => &self.bounds.seconds,
            _ => &self.bounds.tokens,
        }))
    }
}
