//! All kinds that were found, by kind and name; of one name all versions, in the order in which they are preferred: the places of the search path in their order, in one
//! place the newest version. What is named is the first of them that will do ([`Reference`]), and a lock may allow only some ([`Lock`]).

use crate::{
    AbiVersion, AggregateKind, DeploymentKind, Flavour, KindDescription, LoadError, LoadProblem, Lock, NoKind, NoVersion, NotInFile,
    PluginFile, Reference, ScalarKind, SearchEntry, SearchPath, SinkKind, SourceKind, TransformKind, Twins, UnknownKind, VersionWanted,
    kinds::OfFile,
    library::{self, AnyKind, Plugin},
    reference::newness,
};
use standpipe_sdk::{config::closest, export};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// What the search found. Cheap to clone.
#[derive(Clone, Default)]
pub struct Catalogue {
    contents: Arc<Contents>,
    /// Files that are named where they are used, and take part in no search.
    files: Arc<BTreeMap<PathBuf, Result<Arc<Plugin>, LoadError>>>,
    lock: Option<Arc<Lock>>,
}

#[derive(Default)]
struct Contents {
    plugins: Vec<Arc<PluginFile>>,
    failures: Vec<LoadError>,
    searched: Vec<SearchEntry>,
    /// By kind (`source`) and name.
    kinds: BTreeMap<&'static str, BTreeMap<String, Vec<Found>>>,
}

/// A kind of a plugin.
#[derive(Clone)]
struct Found {
    kind: AnyKind,
    plugin: Arc<PluginFile>,
    /// The place of the search path that had it.
    step: usize,
}

impl Catalogue {
    /// Loads every plugin of the search path, in order. A library in a directory that is no plugin at all is passed over; whatever else cannot be loaded is in
    /// [`Catalogue::failures`].
    #[must_use]
    pub fn discover(search: &SearchPath) -> Self {
        let mut contents = Contents { searched: search.entries.clone(), ..Contents::default() };
        let mut seen = HashSet::new();
        for (step, entry) in search.entries.iter().enumerate() {
            let (files, in_directory) = match libraries(&entry.path) {
                Some(files) => (files, true),
                None if entry.asked_for() => (vec![entry.path.clone()], false),
                None => continue,
            };
            for file in files {
                if seen.insert(file.canonicalize().unwrap_or_else(|_| file.clone())) {
                    contents.load(&file, in_directory, step);
                }
            }
        }
        contents.finish()
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
            Ok(found) => contents.add(&Arc::new(file), &found, 0),
            Err(missing) => {
                let problem = LoadProblem::Interface { plugin: name.to_owned(), missing };
                contents.failures.push(LoadError::new(Path::new(name), problem));
            }
        }
        contents.finish()
    }

    /// With these files, which are named where they are used: `./libmine.so#kafka`. Their kinds are found by no name alone.
    #[must_use]
    pub fn with_files(self, files: impl IntoIterator<Item = PathBuf>) -> Self {
        let load = |file: PathBuf| {
            let plugin = library::load(&file);
            (file, plugin)
        };
        Self { files: Arc::new(files.into_iter().map(load).collect()), ..self }
    }

    /// With a lock: only what it allows is used.
    #[must_use]
    pub fn locked(self, lock: Lock) -> Self {
        Self { lock: Some(Arc::new(lock)), ..self }
    }

    /// The plugins, in the order in which they were found.
    #[must_use]
    pub fn plugins(&self) -> &[Arc<PluginFile>] {
        &self.contents.plugins
    }

    /// Files that should be plugins and cannot be loaded.
    #[must_use]
    pub fn failures(&self) -> &[LoadError] {
        &self.contents.failures
    }

    /// Where was searched.
    #[must_use]
    pub fn searched(&self) -> &[SearchEntry] {
        &self.contents.searched
    }

    /// The source that is named: [`Reference::parse`].
    ///
    /// # Errors
    /// When there is none: what was meant, found, searched.
    pub fn source(&self, reference: &str) -> Result<SourceKind, NoKind> {
        self.find(reference)
    }

    /// The transform that is named.
    ///
    /// # Errors
    /// As `source`.
    pub fn transform(&self, reference: &str) -> Result<TransformKind, NoKind> {
        self.find(reference)
    }

    /// The sink that is named.
    ///
    /// # Errors
    /// As `source`.
    pub fn sink(&self, reference: &str) -> Result<SinkKind, NoKind> {
        self.find(reference)
    }

    /// The scalar function that is named.
    ///
    /// # Errors
    /// As `source`.
    pub fn scalar(&self, reference: &str) -> Result<ScalarKind, NoKind> {
        self.find(reference)
    }

    /// The aggregate function that is named.
    ///
    /// # Errors
    /// As `source`.
    pub fn aggregate(&self, reference: &str) -> Result<AggregateKind, NoKind> {
        self.find(reference)
    }

    /// The deployment mode that is named.
    ///
    /// # Errors
    /// As `source`.
    pub fn deployment(&self, reference: &str) -> Result<DeploymentKind, NoKind> {
        self.find(reference)
    }

    /// The names of the kinds `source`, `transform`, `sink`, `scalar`, `aggregate` or `deployment`.
    pub fn names(&self, kind: &str) -> impl Iterator<Item = &String> + Clone {
        self.contents.kinds.get(kind).into_iter().flat_map(BTreeMap::keys)
    }

    /// What there is to say when there is no function that is named so, scalar or aggregate.
    #[must_use]
    pub fn no_function(&self, reference: &str) -> NoKind {
        match Reference::parse(reference) {
            Ok(Reference { file: Some(file), name, .. }) => self.not_in_file(file, "function", &["scalar", "aggregate"], &name),
            Ok(Reference { name, .. }) => {
                NoKind::Unknown(self.unknown("function", self.names("scalar").chain(self.names("aggregate")), &name))
            }
            Err(problem) => NoKind::Reference(problem),
        }
    }

    /// Descriptions of the kinds `source`, `transform`, `sink`, `scalar`, `aggregate` or `deployment`, by name; of each name the one that it stands for alone.
    #[must_use]
    pub fn kinds(&self, kind: &str) -> Vec<&KindDescription> {
        let described = |(name, found): (&String, &'_ Vec<Found>)| -> Option<&KindDescription> {
            let known =
                self.contents.plugins.iter().find(|plugin| found.first().is_some_and(|first| Arc::ptr_eq(&first.plugin, plugin)))?;
            known.description.kinds.iter().find(|known| known.kind == kind && known.name == *name)
        };
        self.contents.kinds.get(kind).into_iter().flatten().filter_map(described).collect()
    }

    /// The plugins that have a kind of that name, the one first that the name alone stands for.
    pub fn having(&self, kind: &str, name: &str) -> impl Iterator<Item = &Arc<PluginFile>> {
        self.found(kind, name).iter().map(|found| &found.plugin)
    }

    /// Where a file stands in the order in which those are tried that have a kind of one name; files that no search finds are the last.
    #[must_use]
    pub fn preference(&self, file: &PluginFile) -> impl Ord + use<> {
        let all = self.contents.kinds.values().flat_map(BTreeMap::values).flatten();
        let step = all.filter(|found| std::ptr::eq(found.plugin.as_ref(), file)).map(|found| found.step).min();
        let place = self.contents.plugins.iter().position(|plugin| std::ptr::eq(plugin.as_ref(), file));
        let locked = self.lock.as_ref().and_then(|lock| lock.place(file));
        (locked.unwrap_or(usize::MAX), step.unwrap_or(usize::MAX), Reverse(newness(&file.version)), place, file.path.clone())
    }

    fn found(&self, kind: &str, name: &str) -> &[Found] {
        self.contents.kinds.get(kind).and_then(|names| names.get(name)).map_or(&[], Vec::as_slice)
    }

    fn find<K: OfFile>(&self, reference: &str) -> Result<K, NoKind> {
        let Reference { file, name, version } = Reference::parse(reference).map_err(NoKind::Reference)?;
        let found = match file {
            Some(file) => vec![self.in_file(file, K::KIND, &name)?],
            None => self.found(K::KIND, &name).to_vec(),
        };
        if found.is_empty() {
            return Err(NoKind::Unknown(self.unknown(K::KIND, self.names(K::KIND), &name)));
        }
        let fitting: Vec<&Found> = found.iter().filter(|found| fits(found, version.as_ref())).collect();
        let chosen = match &self.lock {
            _ if fitting.is_empty() => return Err(no_version(K::KIND, name, version.as_ref(), &found)),
            None => first(K::KIND, &name, &fitting)?,
            Some(lock) => allowed(lock, &fitting)?,
        };
        // It is filed under its kind.
        chosen
            .and_then(|chosen| K::of(&chosen.kind, &chosen.plugin))
            .ok_or_else(|| NoKind::Unknown(self.unknown(K::KIND, self.names(K::KIND), &name)))
    }

    /// The kind of a file that is named.
    fn in_file(&self, file: PathBuf, kind: &'static str, name: &str) -> Result<Found, NoKind> {
        let not_loaded = || NoKind::File(LoadError::new(&file, LoadProblem::Unreadable("it is not loaded".to_owned())));
        let plugin = self.files.get(&file).ok_or_else(not_loaded)?.as_ref().map_err(|error| NoKind::File(error.clone()))?;
        let found = plugin.kinds.iter().find(|known| known.kind() == kind && known.name() == name);
        let found = found.map(|known| Found { kind: known.clone(), plugin: Arc::clone(&plugin.file), step: 0 });
        found.ok_or_else(|| self.not_in_file(file, kind, &[kind], name))
    }

    fn not_in_file(&self, file: PathBuf, kind: &'static str, kinds: &[&str], name: &str) -> NoKind {
        let has: Vec<&AnyKind> =
            self.files.get(&file).and_then(|plugin| plugin.as_ref().ok()).map_or(Vec::new(), |plugin| plugin.kinds.iter().collect());
        let names = has.iter().filter(|known| kinds.contains(&known.kind())).map(|known| known.name());
        let suggestion = closest(name, names).map(str::to_owned);
        let found = has.iter().map(|known| format!("{} {}", known.kind(), known.name())).collect();
        NoKind::NotInFile(Box::new(NotInFile { file, kind, name: name.to_owned(), found, suggestion }))
    }

    fn unknown<'a>(&self, kind: &'static str, names: impl Iterator<Item = &'a String> + Clone, name: &str) -> UnknownKind {
        UnknownKind {
            kind,
            name: name.to_owned(),
            found: names.clone().cloned().collect(),
            searched: self.contents.searched.iter().map(|entry| entry.path.clone()).collect(),
            suggestion: closest(name, names.map(String::as_str)).map(str::to_owned),
            failures: self.contents.failures.iter().map(ToString::to_string).collect(),
        }
    }
}

fn fits(found: &Found, version: Option<&VersionWanted>) -> bool {
    version.is_none_or(|version| version.takes(&found.plugin.version))
}

/// The first one, unless another one is as good and differs.
fn first<'a>(kind: &'static str, name: &str, fitting: &[&'a Found]) -> Result<Option<&'a Found>, NoKind> {
    let Some(&first) = fitting.first() else { return Ok(None) };
    let is_as_good = |other: &&&Found| {
        other.step == first.step
            && newness(&other.plugin.version) == newness(&first.plugin.version)
            && !other.plugin.has_content_of(&first.plugin)
    };
    match fitting.iter().skip(1).find(is_as_good) {
        None => Ok(Some(first)),
        Some(other) => Err(NoKind::Twins(Box::new(Twins {
            kind,
            name: name.to_owned(),
            version: first.plugin.version.clone(),
            files: [first.plugin.path.clone(), other.plugin.path.clone()],
        }))),
    }
}

/// The first one in the lock's order.
fn allowed<'a>(lock: &Lock, fitting: &[&'a Found]) -> Result<Option<&'a Found>, NoKind> {
    let placed = fitting.iter().filter_map(|found| Some((lock.place(&found.plugin)?, *found)));
    match placed.min_by_key(|(place, _)| *place) {
        Some((_, found)) => Ok(Some(found)),
        None => match lock.refusal(fitting.iter().map(|found| found.plugin.as_ref())) {
            Some(refusal) => Err(NoKind::Locked(Box::new(refusal))),
            None => Ok(None),
        },
    }
}

fn no_version(kind: &'static str, name: String, version: Option<&VersionWanted>, found: &[Found]) -> NoKind {
    let wanted = version.map(ToString::to_string).unwrap_or_default();
    let found = found.iter().map(|found| (found.plugin.version.clone(), found.plugin.path.clone())).collect();
    NoKind::Version(NoVersion { kind, name, wanted, found })
}

impl fmt::Debug for Catalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = f.debug_map();
        for (kind, names) in &self.contents.kinds {
            kinds.entry(kind, &names.keys().collect::<Vec<_>>());
        }
        kinds.finish()
    }
}

impl Contents {
    fn load(&mut self, file: &Path, in_directory: bool, step: usize) {
        match library::load(file) {
            Ok(plugin) => self.add(&plugin.file, &plugin.kinds, step),
            Err(error) if in_directory && *error.problem() == LoadProblem::NoManifest => {}
            Err(error) => self.failures.push(error),
        }
    }

    fn add(&mut self, file: &Arc<PluginFile>, kinds: &[AnyKind], step: usize) {
        for kind in kinds {
            let found = Found { kind: kind.clone(), plugin: Arc::clone(file), step };
            self.kinds.entry(kind.kind()).or_default().entry(kind.name().to_owned()).or_default().push(found);
        }
        self.plugins.push(Arc::clone(file));
    }

    /// Puts what has one name into order; what is as good stays as it was found.
    fn finish(mut self) -> Catalogue {
        for found in self.kinds.values_mut().flat_map(BTreeMap::values_mut) {
            found.sort_by_key(|found| (found.step, Reverse(newness(&found.plugin.version))));
        }
        Catalogue { contents: Arc::new(self), ..Catalogue::default() }
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
