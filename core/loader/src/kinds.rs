//! Kinds that know which file they come from. What they can do is that of the SDK's hosting module, by [`Deref`].

use crate::PluginFile;
use standpipe_sdk::hosting;
use std::{ops::Deref, sync::Arc};

macro_rules! kind {
    ($(#[$doc:meta])* $Name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $Name {
            kind: hosting::$Name,
            plugin: Arc<PluginFile>,
        }

        impl $Name {
            pub(crate) const fn new(kind: hosting::$Name, plugin: Arc<PluginFile>) -> Self {
                Self { kind, plugin }
            }

            /// The plugin that it is of.
            #[must_use]
            pub const fn plugin(&self) -> &Arc<PluginFile> {
                &self.plugin
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
    SourceKind
);
kind!(
    /// A transform of a plugin.
    TransformKind
);
kind!(
    /// A sink of a plugin.
    SinkKind
);
kind!(
    /// A scalar function of a plugin.
    ScalarKind
);
kind!(
    /// An aggregate function of a plugin.
    AggregateKind
);
kind!(
    /// A deployment mode of a plugin.
    DeploymentKind
);
