//! Every counter and gauge of the operator, with its unit and meaning.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

/// The outcome of one reconcile.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct OutcomeLabel {
    /// `ok` or what failed.
    pub outcome: String,
}

/// Which API call was made.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct WriteLabel {
    /// Kind of the object written.
    pub kind: String,
}

/// Which set, and why its master changed.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct FailoverLabel {
    /// Namespace of the set.
    pub namespace: String,
    /// Name of the set.
    pub name: String,
    /// Reason as in the status.
    pub reason: String,
}

/// A set.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub struct SetLabel {
    /// Namespace of the set.
    pub namespace: String,
    /// Name of the set.
    pub name: String,
}

/// All metrics of one operator process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles by outcome.
    pub reconciles: Family<OutcomeLabel, Counter>,
    /// How long a reconcile took.
    pub reconcile_seconds: Histogram,
    /// Writes to the API server, by kind. It stands still while nothing changes.
    pub api_writes: Family<WriteLabel, Counter>,
    /// Changes of a master, by set and reason.
    pub failovers: Family<FailoverLabel, Counter>,
    /// How long the last change of the master kept writes from being served.
    pub outage_seconds: Family<SetLabel, Gauge<f64, AtomicU64>>,
    /// 1 while this pod is the acting operator.
    pub leader: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics, all zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("redfleet_operator");
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_seconds: Histogram::new([
                0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0,
            ]),
            api_writes: Family::default(),
            failovers: Family::default(),
            outage_seconds: Family::default(),
            leader: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "reconciles",
            "Reconciles by outcome",
            metrics.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile",
            "Duration of a reconcile",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "api_writes",
            "Writes to the API server by kind; stands still while nothing changes",
            metrics.api_writes.clone(),
        );
        registry.register(
            "failovers",
            "Changes of the master by set and reason",
            metrics.failovers.clone(),
        );
        registry.register_with_unit(
            "last_outage",
            "How long the last change of the master kept writes from being served",
            Unit::Seconds,
            metrics.outage_seconds.clone(),
        );
        registry.register(
            "leader",
            "1 while this pod is the acting operator",
            metrics.leader.clone(),
        );
        Self {
            registry,
            ..metrics
        }
    }

    /// Counts one write to the API server.
    pub fn wrote(&self, kind: &str) {
        self.api_writes
            .get_or_create(&WriteLabel {
                kind: kind.to_owned(),
            })
            .inc();
    }

    /// Counts one reconcile.
    pub fn reconciled(&self, outcome: &str, took: Duration) {
        let label = OutcomeLabel {
            outcome: outcome.to_owned(),
        };
        self.reconciles.get_or_create(&label).inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Shows a set that is gone no more. `reasons` are all that its master may have changed for.
    pub fn forget(&self, set: &SetLabel, reasons: impl IntoIterator<Item = String>) {
        self.outage_seconds.remove(set);
        for reason in reasons {
            self.failovers.remove(&FailoverLabel {
                namespace: set.namespace.clone(),
                name: set.name.clone(),
                reason,
            });
        }
    }

    /// Everything in the text format of OpenMetrics.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)
            .expect("writing into a String fails only when memory is exhausted");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_prefix_and_the_unit() {
        let metrics = Metrics::new();
        metrics.wrote("StatefulSet");
        metrics.reconciled("ok", Duration::from_millis(3));
        let text = metrics.encode();
        for line in [
            "redfleet_operator_api_writes_total{kind=\"StatefulSet\"} 1",
            "redfleet_operator_reconciles_total{outcome=\"ok\"} 1",
            "redfleet_operator_reconcile_seconds_count 1",
        ] {
            assert!(text.contains(line), "{line} missing in\n{text}");
        }
    }

    /// One sample of every metric. A new one does not compile here until it is counted.
    fn one_of_each() -> Metrics {
        let metrics = Metrics::new();
        let Metrics {
            registry: _,
            reconciles: _,
            reconcile_seconds: _,
            api_writes: _,
            failovers,
            outage_seconds,
            leader: _,
        } = &metrics;
        let (namespace, name) = ("shop".to_owned(), "orders".to_owned());
        outage_seconds
            .get_or_create(&SetLabel {
                namespace: namespace.clone(),
                name: name.clone(),
            })
            .set(0.5);
        let reason = "MasterLost".to_owned();
        failovers
            .get_or_create(&FailoverLabel {
                namespace,
                name,
                reason,
            })
            .inc();
        metrics.wrote("StatefulSet");
        metrics.reconciled("ok", Duration::from_millis(3));
        metrics
    }

    /// Name, type and labels of every metric as the documentation lists them: `| name | type | labels |`.
    fn rows(text: &str) -> Vec<String> {
        let types = text.lines().filter_map(|l| l.strip_prefix("# TYPE "));
        let row = |(name, kind): (&str, &str)| {
            let suffix = if kind == "counter" { "_total" } else { "" };
            let labels = text
                .lines()
                .find_map(|l| l.strip_prefix(&format!("{name}{suffix}{{")))
                .and_then(|l| l.split_once('}'))
                .map_or_else(String::new, |(labels, _)| names_of(labels));
            format!("| `{name}{suffix}` | {kind} | {labels} |")
        };
        types.filter_map(|l| l.split_once(' ')).map(row).collect()
    }

    /// ``a="1",b="2"`` as `` `a`, `b` ``.
    fn names_of(labels: &str) -> String {
        let names: Vec<String> = labels
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        names.join(", ")
    }

    #[test]
    fn the_documentation_lists_exactly_these_metrics() {
        const DOCUMENTATION: &str = include_str!("../../../docs/architecture.md");
        let listed: Vec<&str> = DOCUMENTATION
            .lines()
            .filter(|line| line.starts_with("| `redfleet_operator_"))
            .collect();
        let rows = rows(&one_of_each().encode());
        let is_row = |line: &&str, row: &String| line.starts_with(row.as_str());
        for row in &rows {
            assert!(
                listed.iter().any(|line| is_row(line, row)),
                "docs/architecture.md misses {row}"
            );
        }
        assert_eq!(listed.len(), rows.len(), "{listed:#?}\n{rows:#?}");
    }
}
