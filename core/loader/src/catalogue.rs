//! All kinds that were found, by kind and name.

use crate::{
    AbiVersion, AggregateKind, DeploymentKind, Flavour, KindDescription, LoadError, LoadProblem, PluginFile, ScalarKind, SearchEntry,
    SearchPath, SinkKind, SourceKind, TransformKind,
    library::{self, AnyKind},
};
use standpipe_sdk::{config::closest, export};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What the search found. Cheap to clone.
#[derive(Clone, Default)]
pub struct Catalogue(Arc<Contents>);

#[derive(Default)]
struct Contents {
    plugins: Vec<Arc<PluginFile>>,
    failures: Vec<LoadError>,
    searched: Vec<SearchEntry>,
    sources: BTreeMap<String, SourceKind>,
    transforms: BTreeMap<String, TransformKind>,
    sinks: BTreeMap<String, SinkKind>,
    scalars: BTreeMap<String, ScalarKind>,
    aggregates: BTreeMap<String, AggregateKind>,
    deployments: BTreeMap<String, DeploymentKind>,
}

impl Catalogue {
    /// Loads every plugin of the search path, in order. Of two kinds with one name the first one found wins. A library in a directory that is no plugin at all is
    /// passed over; whatever else cannot be loaded is in [`Catalogue::failures`].
    #[must_use]
    pub fn discover(search: &SearchPath) -> Self {
        let mut contents = Contents { searched: search.entries.clone(), ..Contents::default() };
        let mut seen = HashSet::new();
        for entry in &search.entries {
            let (files, in_directory) = match libraries(&entry.path) {
                Some(files) => (files, true),
                None if entry.asked_for() => (vec![entry.path.clone()], false),
                None => continue,
            };
            for file in files {
                if seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                    contents.load(&file, in_directory);
                }
            }
        }
        Self(Arc::new(contents))
    }

    /// The kinds of a plugin that is linked into this program, for tests and embedding: `Catalogue::linked("mine", &[Kind::source::<Mine>()])`.
    #[must_use]
    pub fn linked(name: &str, kinds: &[export::Kind]) -> Self {
        let file = PluginFile {
            path: PathBuf::new(),
            name: name.to_owned(),
            version: "linked".to_owned(),
            abi: AbiVersion::HOST,
            flavour: Flavour::Rust,
            description: export::description(kinds, "linked"),
            content: None,
            hash: OnceLock::new(),
        };
        let mut contents = Contents::default();
        match library::read_kinds(&file, &|kind, id| export::table(kinds, kind, id)) {
            Ok(found) => contents.add(Arc::new(file), found),
            Err(missing) => {
                let problem = LoadProblem::Interface { plugin: name.to_owned(), missing };
                contents.failures.push(LoadError::new(Path::new(name), problem));
            }
        }
        Self(Arc::new(contents))
    }

    /// The plugins, in the order in which they were found.
    #[must_use]
    pub fn plugins(&self) -> &[Arc<PluginFile>] {
        &self.0.plugins
    }

    /// Files that should be plugins and cannot be loaded.
    #[must_use]
    pub fn failures(&self) -> &[LoadError] {
        &self.0.failures
    }

    /// Where was searched.
    #[must_use]
    pub fn searched(&self) -> &[SearchEntry] {
        &self.0.searched
    }

    /// The source of that name.
    ///
    /// # Errors
    /// When there is none: what was meant, found, searched.
    pub fn source(&self, name: &str) -> Result<SourceKind, UnknownKind> {
        self.find("source", &self.0.sources, name)
    }

    /// The transform of that name.
    ///
    /// # Errors
    /// As `source`.
    pub fn transform(&self, name: &str) -> Result<TransformKind, UnknownKind> {
        self.find("transform", &self.0.transforms, name)
    }

    /// The sink of that name.
    ///
    /// # Errors
    /// As `source`.
    pub fn sink(&self, name: &str) -> Result<SinkKind, UnknownKind> {
        self.find("sink", &self.0.sinks, name)
    }

    /// The scalar functions, by name.
    #[must_use]
    pub fn scalars(&self) -> &BTreeMap<String, ScalarKind> {
        &self.0.scalars
    }

    /// The aggregate functions, by name.
    #[must_use]
    pub fn aggregates(&self) -> &BTreeMap<String, AggregateKind> {
        &self.0.aggregates
    }

    /// What there is to say when there is no function of that name, scalar or aggregate.
    #[must_use]
    pub fn no_function(&self, name: &str) -> UnknownKind {
        self.unknown("function", self.0.scalars.keys().chain(self.0.aggregates.keys()), name)
    }

    /// The deployment mode of that name.
    ///
    /// # Errors
    /// As `source`.
    pub fn deployment(&self, name: &str) -> Result<DeploymentKind, UnknownKind> {
        self.find("deployment", &self.0.deployments, name)
    }

    /// Descriptions of the kinds `source`, `transform`, `sink`, `scalar`, `aggregate` or `deployment`, by name.
    #[must_use]
    pub fn kinds(&self, kind: &str) -> Vec<&KindDescription> {
        let all = || self.0.plugins.iter().flat_map(|plugin| &plugin.description.kinds);
        let first = |name: &String| all().find(|known| known.kind == kind && known.name == *name);
        match kind {
            "source" => self.0.sources.keys().filter_map(first).collect(),
            "transform" => self.0.transforms.keys().filter_map(first).collect(),
            "sink" => self.0.sinks.keys().filter_map(first).collect(),
            "scalar" => self.0.scalars.keys().filter_map(first).collect(),
            "aggregate" => self.0.aggregates.keys().filter_map(first).collect(),
            "deployment" => self.0.deployments.keys().filter_map(first).collect(),
            _ => Vec::new(),
        }
    }

    fn find<K: Clone>(&self, kind: &'static str, kinds: &BTreeMap<String, K>, name: &str) -> Result<K, UnknownKind> {
        if let Some(found) = kinds.get(name) {
            return Ok(found.clone());
        }
        Err(self.unknown(kind, kinds.keys(), name))
    }

    fn unknown<'a>(&self, kind: &'static str, names: impl Iterator<Item = &'a String> + Clone, name: &str) -> UnknownKind {
        UnknownKind {
            kind,
            name: name.to_owned(),
            found: names.clone().cloned().collect(),
            searched: self.0.searched.iter().map(|entry| entry.path.clone()).collect(),
            suggestion: closest(name, names.map(String::as_str)).map(str::to_owned),
            failures: self.0.failures.iter().map(ToString::to_string).collect(),
        }
    }
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |kind: &str| self.kinds(kind).iter().map(|kind| kind.name.clone()).collect::<Vec<_>>();
        f.debug_struct("Catalogue")
            .field("sources", &names("source"))
            .field("transforms", &names("transform"))
            .field("sinks", &names("sink"))
            .field("scalars", &names("scalar"))
            .field("aggregates", &names("aggregate"))
            .field("deployments", &names("deployment"))
            .finish_non_exhaustive()
    }
}

impl Contents {
    fn load(&mut self, file: &Path, in_directory: bool) {
        match library::load(file) {
            Ok(plugin) => self.add(plugin.file.clone(), plugin.kinds.clone()),
            Err(error) if in_directory && *error.problem() == LoadProblem::NoManifest => {}
            Err(error) => self.failures.push(error),
        }
    }

    fn add(&mut self, file: Arc<PluginFile>, kinds: Vec<AnyKind>) {
        for kind in kinds {
            match kind {
                AnyKind::Source(kind) => {
                    self.sources.entry(kind.name().to_owned()).or_insert_with(|| SourceKind::new(kind, file.clone()));
                }
                AnyKind::Transform(kind) => {
                    self.transforms.entry(kind.name().to_owned()).or_insert_with(|| TransformKind::new(kind, file.clone()));
                }
                AnyKind::Sink(kind) => {
                    self.sinks.entry(kind.name().to_owned()).or_insert_with(|| SinkKind::new(kind, file.clone()));
                }
                AnyKind::Scalar(kind) => {
                    self.scalars.entry(kind.name().to_owned()).or_insert_with(|| ScalarKind::new(kind, file.clone()));
                }
                AnyKind::Aggregate(kind) => {
                    self.aggregates.entry(kind.name().to_owned()).or_insert_with(|| AggregateKind::new(kind, file.clone()));
                }
                AnyKind::Deployment(kind) => {
                    self.deployments.entry(kind.name().to_owned()).or_insert_with(|| DeploymentKind::new(kind, file.clone()));
                }
            }
        }
        self.plugins.push(file);
    }
}

/// The shared libraries of a directory, by name; `None` if it is no directory.
fn libraries(directory: &Path) -> Option<Vec<PathBuf>> {
    let entries = directory.read_dir().ok()?;
    let mut files: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "so")).collect();
    files.sort();
    Some(files)
}

/// There is no kind of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKind {
    /// `source`, `transform`, `sink`, `function` or `deployment`.
    pub kind: &'static str,
    /// What was asked for.
    pub name: String,
    /// What there is.
    pub found: Vec<String>,
    /// Where was searched.
    pub searched: Box<[PathBuf]>,
    /// What was probably meant.
    pub suggestion: Option<String>,
    /// Files that could not be loaded: it may be in one of them.
    pub failures: Box<[String]>,
}

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} {:?}", self.kind, self.name)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, ", did you mean {suggestion:?}?")?;
        } else {
            f.write_str(".")?;
        }
        let list = |items: &[String]| if items.is_empty() { "nothing".to_owned() } else { items.join(", ") };
        let searched: Vec<String> = self.searched.iter().map(|path| path.display().to_string()).collect();
        write!(f, " Found: {}. Searched: {}", list(&self.found), list(&searched))?;
        if !self.failures.is_empty() {
            write!(f, ". Not loaded: {}", self.failures.join("; "))?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownKind {}
