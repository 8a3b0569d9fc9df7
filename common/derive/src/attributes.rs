//! Reads the helper attributes of the derive macros.

use syn::{Attribute, Expr, LitStr, Path, Result, Token};

/// What `#[record(...)]` or `#[state(...)]` says on a type or field.
#[derive(Default)]
pub(crate) struct Options {
    /// `crate = path`
    pub(crate) krate: Option<Path>,
    /// `serde`
    pub(crate) serde: bool,
    /// `skip`
    pub(crate) skip: bool,
    /// `name = "..."`
    pub(crate) name: Option<LitStr>,
    /// `default` or `default = "function"`
    pub(crate) default: Option<DefaultValue>,
    /// `rename_from = "..."`, as often as it is there
    pub(crate) rename_from: Vec<LitStr>,
    /// `ttl = "1h"`, or `ttl = expression`
    pub(crate) ttl: Option<Expr>,
}

/// Where the value of a field comes from that older bytes lack.
pub(crate) enum DefaultValue {
    /// Its type's `Default`.
    OfType,
    /// A function without arguments.
    Function(Path),
}

impl Options {
    /// Reads all attributes called `kind`; only the words in `allowed` may stand there.
    pub(crate) fn read(attributes: &[Attribute], kind: &str, allowed: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(kind)) {
            attribute.parse_nested_meta(|meta| {
                let word = meta.path.get_ident().map(ToString::to_string).unwrap_or_default();
                match word.as_str() {
                    word if !allowed.contains(&word) => Err(meta.error(format!(
                        "unknown word in #[{kind}(...)]; known here: {}",
                        allowed.join(", ")
                    ))),
                    "crate" => meta.value()?.parse().map(|path| options.krate = Some(path)),
                    "name" => meta.value()?.parse().map(|name| options.name = Some(name)),
                    "rename_from" => meta.value()?.parse().map(|name| options.rename_from.push(name)),
                    "ttl" => meta.value()?.parse().map(|ttl| options.ttl = Some(ttl)),
                    "default" => {
                        options.default = Some(if meta.input.peek(Token![=]) {
                            DefaultValue::Function(meta.value()?.parse::<LitStr>()?.parse()?)
                        } else {
                            DefaultValue::OfType
                        });
                        Ok(())
                    }
                    "skip" => {
                        options.skip = true;
                        Ok(())
                    }
                    _ => {
                        options.serde = true;
                        Ok(())
                    }
                }
            })?;
        }
        Ok(options)
    }

    /// The crate whose traits generated code names.
    pub(crate) fn krate(self) -> Path {
        self.krate.unwrap_or_else(|| syn::parse_quote!(::thalweg))
    }
}
