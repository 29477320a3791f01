//! What the processes tell Prometheus, in its text format. Names begin with `standpipe_`; a job is told by `job_name` and `job_id`: Prometheus itself calls what it scrapes
//! `job`, and would rename a label of ours with that name.

mod job;
mod serve;

pub use job::job;
pub use serve::{Exposer, IsReady, Render};

use prometheus::{
    Encoder, TextEncoder,
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType, Quantile, Summary},
};
use std::collections::BTreeMap;

/// Labels of a sample; those whose value is empty are left out.
pub type Labels<'a> = [(&'a str, &'a str)];

/// What a process tells at one time.
#[derive(Default)]
pub struct Families(BTreeMap<String, MetricFamily>);

impl Families {
    /// Nothing but which release it is.
    #[must_use]
    pub fn new() -> Self {
        let mut families = Self::default();
        families.gauge("standpipe_build_info", "Which release this is; always 1.", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        families
    }

    /// A number that only grows; its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, labels: &Labels<'_>, value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.add(name, help, MetricType::COUNTER, labels, |metric| metric.set_counter(counter));
    }

    /// A number that may fall.
    pub fn gauge(&mut self, name: &str, help: &str, labels: &Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.add(name, help, MetricType::GAUGE, labels, |metric| metric.set_gauge(gauge));
    }

    /// A distribution: how many, their sum, and some quantiles of all of them.
    pub fn summary(&mut self, name: &str, help: &str, labels: &Labels<'_>, (count, sum): (u64, f64), quantiles: &[(f64, f64)]) {
        let mut summary = Summary::default();
        summary.set_sample_count(count);
        summary.set_sample_sum(sum);
        let quantile = |(at, value): &(f64, f64)| {
            let mut quantile = Quantile::default();
            quantile.set_quantile(*at);
            quantile.set_value(*value);
            quantile
        };
        summary.set_quantile(quantiles.iter().map(quantile).collect());
        self.add(name, help, MetricType::SUMMARY, labels, |metric| metric.set_summary(summary));
    }

    /// A name that stands for two types of metrics, as plugins may have it, stands for the first.
    fn add(&mut self, name: &str, help: &str, kind: MetricType, labels: &Labels<'_>, set: impl FnOnce(&mut Metric)) {
        let family = self.0.entry(name.to_owned()).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        if family.get_field_type() != kind {
            return;
        }
        let pair = |(name, value): &(&str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut metric = Metric::from_label(labels.iter().filter(|(_, value)| !value.is_empty()).map(pair).collect());
        set(&mut metric);
        family.mut_metric().push(metric);
    }

    /// As Prometheus reads it.
    #[must_use]
    pub fn text(self) -> String {
        let families: Vec<MetricFamily> = self.0.into_values().collect();
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&families, &mut text) {
            tracing::warn!("metrics cannot be told: {error}");
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// The type of [`Families::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What Prometheus takes as a name: letters, digits and `_`, not beginning with a digit.
fn name(text: &str) -> String {
    let mut name: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_has_its_type_once_and_labels_are_escaped() {
        let mut families = Families::default();
        families.counter("a_total", "What it is.", &[("path", "x\"y\\z\n"), ("none", "")], 3.0);
        families.counter("a_total", "What it is.", &[("path", "b")], 4.0);
        families.gauge("a_total", "Another type.", &[], 5.0);
        let text = families.text();
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total{path=\"x\\\"y\\\\z\\n\"} 3\na_total{path=\"b\"} 4\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn any_text_becomes_a_name() {
        assert_eq!((name("a-b.c"), name("9x"), name("")), ("a_b_c".to_owned(), "_9x".to_owned(), "_".to_owned()));
    }
}
