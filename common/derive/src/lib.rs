//! The derive macros of Thalweg: [`macro@Record`] and [`macro@State`].
//!
//! Generated code names its traits by the path of the `thalweg` crate, which every job depends on; crates below it say
//! `#[record(crate = thalweg_common)]` or `#[state(crate = thalweg_state)]`.

mod attributes;
mod record;
mod state;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Makes a struct or enum a record: compact encoding, schema and fingerprint.
///
/// All fields must be records themselves. A field of a type that only has serde is marked `#[record(serde)]`.
/// A type parameter gets the bound `Record`.
///
/// What state of this type holds outlives the program that wrote it, so a later version says how it reads older values:
/// - `#[record(default)]` above a new field: older values get its type's `Default`, or with `#[record(default = "function")]` what
///   that function gives, which must always be the same;
/// - `#[record(rename_from = "old")]` above a field or a variant that was called `old`; it may be there several times.
///
/// Fields that are gone, in another order, `Option` now, or wider numbers, and further variants need no word. The names of a
/// tuple struct's fields are their positions: only at its end a field can come or go.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    record::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Declares the fields of a struct as keyed state: each `ValueState` or `MapState` field becomes a state of its name.
///
/// A field that is not state is marked `#[state(skip)]`; a field's state can be given another name with
/// `#[state(name = "...")]`, so that renaming the field does not lose its state.
///
/// An `ExpiringValue` or `ExpiringMap` says how long its values live: `#[state(ttl = "1h")]`, with one of the units `ms`, `s`, `m`, `h`
/// and `d`, or an expression of type `Duration` or `StateTtl`, in which `self` is the struct: `#[state(ttl = self.keep)]`.
#[proc_macro_derive(State, attributes(state))]
pub fn derive_state(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    state::expand(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
