//! The names of manifests, and which of them a job may go on from: that depends on where the generations that have begun went on from.

use crate::manifest::{Kind, Manifest};
use std::{collections::BTreeMap, ops::Range};

const MANIFEST: &str = ".json";
const SAVEPOINT: &str = "-savepoint";
/// No job counts that far: what has a larger number is not ours, and nothing is added to one that could not be larger.
const MOST: u64 = 1 << 48;

/// The number in the name of an object of ours.
pub(super) fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number| *number < MOST)
}

/// What a manifest's object is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) id: u64,
    pub(super) generation: u64,
    pub(super) kind: Kind,
}

impl Name {
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self { id: manifest.id, generation: manifest.generation, kind: manifest.kind }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = name.strip_suffix(MANIFEST)?;
        let (name, kind) = name.strip_suffix(SAVEPOINT).map_or((name, Kind::Checkpoint), |name| (name, Kind::Savepoint));
        let (id, generation) = name.split_once('-')?;
        Some(Self { id: number(id)?, generation: number(generation)?, kind })
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.kind == Kind::Savepoint { SAVEPOINT } else { "" };
        write!(f, "{:08}-{:06}{kind}{MANIFEST}", self.id, self.generation)
    }
}

/// All manifests, each list oldest first.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// From which a job may go on by itself.
    pub(super) holding: Vec<Name>,
    /// Savepoints that a later generation has passed over. Whoever took them may still name them, and they stay until they are removed on request.
    pub(super) aside: Vec<Name>,
    /// Checkpoints that a later generation has passed over: garbage.
    pub(super) passed_over: Vec<Name>,
}

impl Names {
    /// Sorts them by the bases of the generations that have begun. A generation that began with an older checkpoint passes over what is newer and of former
    /// generations; one that began with a savepoint that had been passed over passes over the generations in between.
    pub(super) fn sort(names: Vec<Name>, bases: &BTreeMap<u64, u64>) -> Self {
        let mut off: Vec<Range<u64>> = Vec::new();
        let is_off = |off: &[Range<u64>], generation: &u64| off.iter().any(|range| range.contains(generation));
        for (generation, base) in bases.iter().rev() {
            if !is_off(&off, generation) {
                let of_base =
                    names.iter().filter(|name| name.id == *base && name.generation < *generation).map(|name| name.generation).max();
                off.extend(of_base.map(|of_base| of_base + 1..*generation));
            }
        }
        let holds = |name: &Name| {
            let mut later = bases.range(name.generation + 1..).filter(|(generation, _)| !is_off(&off, generation));
            !is_off(&off, &name.generation) && later.all(|(_, base)| name.id <= *base)
        };
        let (holding, others): (Vec<Name>, Vec<Name>) = names.into_iter().partition(holds);
        let (aside, passed_over) = others.into_iter().partition(|name| name.kind == Kind::Savepoint);
        Self { holding, aside, passed_over }
    }

    /// All that a restore may go on from, oldest first.
    pub(super) fn restorable(&self) -> Vec<Name> {
        let mut names = [self.holding.as_slice(), &self.aside].concat();
        names.sort_unstable();
        names
    }

    pub(super) fn highest(&self) -> u64 {
        [&self.holding, &self.aside, &self.passed_over].into_iter().flatten().map(|name| name.id).max().unwrap_or(0)
    }
}
