//! Two macros: a message with named fields and the rest of it, and a family of messages by name.

/// `struct Name { field: Type, … }`, each field optional, unknown ones in `extra`.
macro_rules! message {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident : $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$type>,)*
            /// Fields that this version of castra does not know.
            #[serde(flatten)]
            pub extra: serde_json::Map<String, serde_json::Value>,
        }
    )*};
}

/// `enum Name { Variant(Type), … }` by wire names, with `Unknown` for the rest.
macro_rules! family {
    ($(#[$doc:meta])* $name:ident { $($wire:literal => $variant:ident($type:ty),)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $($variant(Box<$type>),)*
            /// Not known by this name, or not by these types.
            Unknown(serde_json::Value),
        }

        impl $name {
            /// The names on the wire that have a type.
            pub const KNOWN: &'static [&'static str] = &[$($wire,)*];

            /// Reads `value` as what is called `name`.
            pub fn read(name: &str, value: serde_json::Value) -> Self {
                let typed = match name {
                    $($wire => <$type as serde::Deserialize>::deserialize(&value).map(|it| Self::$variant(Box::new(it))).ok(),)*
                    _ => None,
                };
                typed.unwrap_or(Self::Unknown(value))
            }

            /// Its name on the wire; none for `Unknown`.
            pub fn name(&self) -> Option<&'static str> {
                match self {
                    $(Self::$variant(_) => Some($wire),)*
                    Self::Unknown(_) => None,
                }
            }
        }
    };
}
