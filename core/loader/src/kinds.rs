//! Kinds that know which file they come from. What they can do is that of the SDK's hosting module, by [`Deref`].

use crate::{
    LoadError, PluginFile,
    library::{self, AnyKind, Plugin},
};
use standpipe_sdk::hosting;
use std::{ops::Deref, path::Path, sync::Arc};

/// A kind out of what was found.
pub(crate) trait OfFile: Sized {
    /// As descriptions have it: `source`.
    const KIND: &'static str;

    /// It, if it is one of these.
    fn of(kind: &AnyKind, plugin: &Arc<PluginFile>) -> Option<Self>;
}

macro_rules! kind {
    ($(#[$doc:meta])* $Name:ident, $kind:literal, $Any:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $Name {
            kind: hosting::$Name,
            plugin: Arc<PluginFile>,
        }

        impl $Name {
            /// The plugin that it is of.
            #[must_use]
            pub const fn plugin(&self) -> &Arc<PluginFile> {
                &self.plugin
            }
        }

        impl OfFile for $Name {
            const KIND: &'static str = $kind;

            fn of(kind: &AnyKind, plugin: &Arc<PluginFile>) -> Option<Self> {
                match kind {
                    AnyKind::$Any(kind) => Some(Self { kind: kind.clone(), plugin: Arc::clone(plugin) }),
                    _ => None,
                }
            }
        }

        impl Deref for $Name {
            type Target = hosting::$Name;

            fn deref(&self) -> &Self::Target {
                &self.kind
            }
        }
    };
}

kind!(
    /// A source of a plugin.
    SourceKind,
    "source",
    Source
);
kind!(
    /// A transform of a plugin.
    TransformKind,
    "transform",
    Transform
);
kind!(
    /// A sink of a plugin.
    SinkKind,
    "sink",
    Sink
);
kind!(
    /// A scalar function of a plugin.
    ScalarKind,
    "scalar",
    Scalar
);
kind!(
    /// An aggregate function of a plugin.
    AggregateKind,
    "aggregate",
    Aggregate
);
kind!(
    /// A deployment mode of a plugin.
    DeploymentKind,
    "deployment",
    Deployment
);

/// The kinds of one file, for a process that needs no other.
pub struct FileKinds(Arc<Plugin>);

impl FileKinds {
    /// Loads a plugin file, through all stages.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        library::load(path).map(Self)
    }

    /// The plugin.
    #[must_use]
    pub fn plugin(&self) -> &Arc<PluginFile> {
        &self.0.file
    }

    /// Its source of that name.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<SourceKind> {
        self.find(name)
    }

    /// Its transform of that name.
    #[must_use]
    pub fn transform(&self, name: &str) -> Option<TransformKind> {
        self.find(name)
    }

    /// Its sink of that name.
    #[must_use]
    pub fn sink(&self, name: &str) -> Option<SinkKind> {
        self.find(name)
    }

    fn find<K: OfFile>(&self, name: &str) -> Option<K> {
        self.0.kinds.iter().filter(|kind| kind.name() == name).find_map(|kind| K::of(kind, &self.0.file))
    }
}
