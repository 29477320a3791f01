//! Stages 1 and 2: opens a library, reads its manifest, checks its layout, reads its tables. Libraries stay open for the life of the process: tables, destructors
//! of thread locals and running threads point into them.

use crate::{
    AbiVersion, Flavour, LoadError, LoadProblem, PluginFile, elf,
    file::{self, Identity},
    manifest::{description as description_of, is_name},
};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use standpipe_sdk::{
    abi::{
        Slice,
        abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL},
        growing,
        manifest::{self, ManifestFn},
        root::{InterfaceFn, PluginRef, checked_module},
    },
    hosting::{AggregateKind, DeploymentKind, ScalarKind, SinkKind, SourceKind, Tables, TransformKind},
    wire::KindDescription,
};
use std::{
    collections::HashMap,
    ffi::{CStr, c_char, c_void},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
};

/// A plugin whose tables have been read.
pub(crate) struct Plugin {
    pub(crate) file: Arc<PluginFile>,
    pub(crate) kinds: Vec<AnyKind>,
}

/// A kind with its tables.
#[derive(Clone)]
pub(crate) enum AnyKind {
    Source(SourceKind),
    Transform(TransformKind),
    Sink(SinkKind),
    Scalar(ScalarKind),
    Aggregate(AggregateKind),
    Deployment(DeploymentKind),
}

impl AnyKind {
    /// As descriptions have it: `source`.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::Transform(_) => "transform",
            Self::Sink(_) => "sink",
            Self::Scalar(_) => "scalar",
            Self::Aggregate(_) => "aggregate",
            Self::Deployment(_) => "deployment",
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Source(kind) => kind.name(),
            Self::Transform(kind) => kind.name(),
            Self::Sink(kind) => kind.name(),
            Self::Scalar(kind) => kind.name(),
            Self::Aggregate(kind) => kind.name(),
            Self::Deployment(kind) => kind.name(),
        }
    }
}

/// The plugins that have been loaded from a path.
type Loaded = HashMap<PathBuf, Vec<(Identity, Arc<Plugin>)>>;
static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(Mutex::default);

/// What dlopen has opened by its path, whether it became a plugin or not: for a path that it knows it gives that library again, whatever the file holds now.
static OPENED: LazyLock<Mutex<HashMap<PathBuf, Identity>>> = LazyLock::new(Mutex::default);

/// Loads a plugin file, through all stages.
pub(crate) fn load(path: &Path) -> Result<Arc<Plugin>, LoadError> {
    let fail = |problem| LoadError::new(path, problem);
    let found = File::open(path).map_err(fail)?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let versions = loaded.entry(found.path.clone()).or_default();
    if let Some((_, plugin)) = versions.iter().find(|(identity, _)| *identity == found.identity) {
        return Ok(plugin.clone());
    }
    let identity = found.identity.clone();
    if !versions.is_empty() {
        let hash = file::hash(&found.content).map_err(|error| fail(LoadProblem::Unreadable(error.to_string())))?;
        if let Some(plugin) = versions.iter().find(|(_, plugin)| plugin.file.hash() == hash).map(|(_, plugin)| plugin.clone()) {
            versions.push((identity, plugin.clone()));
            return Ok(plugin);
        }
    }
    let library = found.open_library().map_err(fail)?;
    let plugin = Arc::new(read(library, found).map_err(fail)?);
    versions.push((identity, plugin.clone()));
    Ok(plugin)
}

/// Loads a plugin file up to its manifest. Its start-up code and its manifest function run: a careful host does this in a child process.
///
/// # Errors
/// What is wrong with the file.
pub fn inspect(path: &Path) -> Result<PluginFile, LoadError> {
    let fail = |problem| LoadError::new(path, problem);
    let found = File::open(path).map_err(fail)?;
    let library = found.open_library().map_err(fail)?;
    Ok(read_manifest(library, found).map_err(fail)?.0)
}

/// A file that has passed stage 0.
struct File {
    path: PathBuf,
    content: std::fs::File,
    identity: Identity,
}

impl File {
    fn open(path: &Path) -> Result<Self, LoadProblem> {
        let unreadable = |error: std::io::Error| LoadProblem::Unreadable(error.to_string());
        let path = path.canonicalize().map_err(unreadable)?;
        let (content, metadata) = file::open(&path).map_err(unreadable)?;
        if metadata.is_dir() {
            return Err(LoadProblem::Directory);
        }
        elf::check(&content, metadata.len())?;
        Ok(Self { path, content, identity: Identity::of(&metadata) })
    }

    /// Opens the file, or a copy of it if dlopen knows something else by its path.
    fn open_library(&self) -> Result<&'static Library, LoadProblem> {
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        match opened.get(&self.path) {
            Some(identity) if *identity != self.identity => self.open_copy(),
            _ => {
                let library = open_library(&self.path)?;
                opened.insert(self.path.clone(), self.identity.clone());
                Ok(library)
            }
        }
    }

    /// Opens a copy of what was checked, in a directory that is removed again: the mapped file stays.
    fn open_copy(&self) -> Result<&'static Library, LoadProblem> {
        let failed = |error: std::io::Error| LoadProblem::Unreadable(format!("no copy can be made of the new version: {error}"));
        let directory = tempfile::Builder::new().prefix("standpipe-plugin-").tempdir().map_err(failed)?;
        let copy = directory.path().join(self.path.file_name().unwrap_or_default());
        std::fs::File::create(&copy).and_then(|mut copy| std::io::copy(&mut &self.content, &mut copy)).map_err(failed)?;
        open_library(&copy)
    }
}

/// `RTLD_NOW`: a missing symbol is an error here and no crash later. `RTLD_LOCAL`: plugins do not see each other's symbols. The path is absolute: a bare name would
/// be looked up in the system's library path.
fn open_library(path: &Path) -> Result<&'static Library, LoadProblem> {
    // SAFETY: the start-up code of a plugin is trusted as its functions are.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| refused(&error, path))?;
    Ok(Box::leak(Box::new(library)))
}

/// The loader's own words, without the path that precedes every line of ours.
fn refused(error: &libloading::Error, path: &Path) -> LoadProblem {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let text = text.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&text);
    let text = match text.split_once(": cannot open shared object file: No such file or directory") {
        Some((library, _)) => format!("it needs the library {library}, which is not installed"),
        None if text.ends_with("in static TLS block") => format!("{text}: jemalloc and the like are for programs, mimalloc loads"),
        None => text.to_owned(),
    };
    LoadProblem::Refused(text.lines().collect::<Vec<_>>().join(" "))
}

fn read(library: &'static Library, found: File) -> Result<Plugin, LoadProblem> {
    let (file, manifest) = read_manifest(library, found)?;
    let interface = match file.flavour {
        Flavour::Rust => rust_interface(library, &manifest)?,
        Flavour::C => {
            // SAFETY: the symbol has this type in every plugin of the C flavour.
            let interface = unsafe { library.get::<InterfaceFn>(manifest::INTERFACE_SYMBOL) };
            *interface.map_err(|_| {
                let missing = "the function standpipe_plugin_interface_v1".to_owned();
                LoadProblem::Interface { plugin: manifest.plugin(), missing }
            })?
        }
    };
    // SAFETY: the plugin keeps the contract of its interface function: null or a table of that id that is static.
    let table = |kind: &str, id: &str| unsafe { interface(Slice::new(kind.as_bytes()), Slice::new(id.as_bytes())) };
    let kinds = read_kinds(&file, &table).map_err(|missing| LoadProblem::Interface { plugin: manifest.plugin(), missing })?;
    Ok(Plugin { file: Arc::new(file), kinds })
}

/// The tables of the kinds that this host knows.
pub(crate) fn read_kinds(file: &PluginFile, table: &dyn Fn(&str, &str) -> *const c_void) -> Result<Vec<AnyKind>, String> {
    let label = file.label();
    let kind = |description: &KindDescription| {
        let find = |id: &str| table(&description.name, id);
        // SAFETY: passed on to the callers: `table` gives null or a static table.
        let tables = unsafe { Tables::new(&find) };
        let kind = match description.kind.as_str() {
            "source" => SourceKind::new(&label, description, &tables).map(AnyKind::Source),
            "transform" => TransformKind::new(&label, description, &tables).map(AnyKind::Transform),
            "sink" => SinkKind::new(&label, description, &tables).map(AnyKind::Sink),
            "scalar" => ScalarKind::new(&label, description, &tables).map(AnyKind::Scalar),
            "aggregate" => AggregateKind::new(&label, description, &tables).map(AnyKind::Aggregate),
            "deployment" => DeploymentKind::new(&label, description, &tables).map(AnyKind::Deployment),
            _ => return None,
        };
        Some(kind.map_err(|error| format!("{} {:?}: {error}", description.kind, description.name)))
    };
    file.description.kinds.iter().filter_map(kind).collect()
}

/// The part of a manifest that messages and checks need.
struct Stated {
    name: String,
    version: String,
    abi: AbiVersion,
}

impl Stated {
    fn plugin(&self) -> String {
        format!("{} {}", self.name, self.version)
    }
}

fn read_manifest(library: &'static Library, found: File) -> Result<(PluginFile, Stated), LoadProblem> {
    let damaged = |reason: &str| LoadProblem::BadManifest(reason.to_owned());
    // SAFETY: the symbol has this type by its name.
    let function = unsafe { library.get::<ManifestFn>(manifest::MANIFEST_SYMBOL) }.map_err(|_| LoadProblem::NoManifest)?;
    // SAFETY: a function without conditions; what it gives is null or static.
    let manifest = unsafe { function() };
    if manifest.is_null() {
        return Err(damaged("there is none"));
    }
    // SAFETY: not null; the first member is there.
    if unsafe { (&raw const (*manifest).magic).read() } != manifest::MAGIC {
        return Err(damaged("it does not begin with STNDPIPE"));
    }
    // SAFETY: it is a manifest, which says how long it is.
    let manifest = unsafe { growing::read_manifest(manifest) }.map_err(|why| damaged(&format!("it {why}")))?;
    let (name, version) = (text(manifest.name), text(manifest.version));
    let (Some(name), Some(version)) = (name, version) else { return Err(damaged("it has no name or no version")) };
    if !is_name(&name) || !is_name(&version) {
        return Err(damaged("its name or version is no line of 1 to 255 bytes"));
    }
    let abi = AbiVersion { major: manifest.abi_major, minor: manifest.abi_minor, candidate: manifest.abi_candidate };
    let stated = Stated { name: name.clone(), version: version.clone(), abi };
    if !abi.works_with(AbiVersion::HOST) {
        return Err(LoadProblem::Version { plugin: stated.plugin(), found: abi.to_string(), host: AbiVersion::HOST.to_string() });
    }
    let flavour = match manifest.flavour {
        manifest::FLAVOUR_RUST => Flavour::Rust,
        manifest::FLAVOUR_C => Flavour::C,
        other => return Err(damaged(&format!("its flavour is {other}"))),
    };
    let description = text(manifest.describe_json).ok_or_else(|| damaged("it has no description"))?;
    let description = description_of(&description).map_err(LoadProblem::BadManifest)?;
    let content = Some(found.content);
    Ok((PluginFile { path: found.path, name, version, abi, flavour, description, content, hash: OnceLock::new() }, stated))
}

fn text(text: *const c_char) -> Option<String> {
    // SAFETY: by contract null or a static string with a terminator.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// The interface function of a Rust plugin, behind abi_stable's header and layout check. Not by `RootModule::load_from_file`: that gives the first plugin for
/// every later path.
fn rust_interface(library: &'static Library, stated: &Stated) -> Result<InterfaceFn, LoadProblem> {
    // SAFETY: the symbol is a static of this type in every library that has it; abi_stable checks its magic.
    let header = unsafe { library.get::<AbiHeaderRef>(ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes()) };
    let header = *header.map_err(|_| {
        let missing = "abi_stable's header (an old SDK, or symbols stripped?)".to_owned();
        LoadProblem::Interface { plugin: stated.plugin(), missing }
    })?;
    match checked_module::<PluginRef>(header, stated.abi.minor, AbiVersion::HOST.minor) {
        Ok(root) => Ok(root.interface()),
        Err(error) => {
            let report = error.to_string();
            tracing::debug!(plugin = stated.plugin(), %report, "layout check");
            Err(LoadProblem::Layout { plugin: stated.plugin(), difference: summary(&report) })
        }
    }
}

/// One line of abi_stable's report, which repeats whole type layouts: the first error with what was expected and found.
fn summary(report: &str) -> String {
    let mut lines = report.lines().map(|line| line.trim().trim_end_matches('\0')).filter(|line| !line.is_empty());
    let (mut error, mut expected, mut found) = (None, None, None);
    while let Some(line) = lines.next() {
        match line {
            line if line.starts_with("Error:") && error.is_none() => error = Some(line.trim_start_matches("Error:").trim()),
            "Expected:" if error.is_some() && expected.is_none() => expected = lines.next(),
            "Found:" if expected.is_some() && found.is_none() => found = lines.next(),
            _ => {}
        }
    }
    match (error, expected, found) {
        (Some(error), Some(expected), Some(found)) => format!("{error}: the host has {expected}, the plugin {found}"),
        _ => report.split_whitespace().take(24).collect::<Vec<_>>().join(" "),
    }
}
