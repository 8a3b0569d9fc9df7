//! `#[derive(State)]`: declares every field that is state, by its name and in order.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Expr, ExprLit, Fields, Lit, Path, Result};

use crate::attributes::Options;

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let krate = Options::read(&input.attrs, "state", &["crate"])?.krate();
    let name = &input.ident;
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        _ => {
            return Err(Error::new_spanned(
                name,
                "only a struct can declare state: its fields are the states",
            ));
        }
    };
    if let Fields::Unnamed(_) = fields {
        return Err(Error::new_spanned(name, "name the fields: a state is found again by its field's name"));
    }
    let mut declarations = Vec::new();
    for field in fields {
        let options = Options::read(&field.attrs, "state", &["skip", "name", "ttl"])?;
        let Some(member) = &field.ident else { continue };
        if options.skip {
            continue;
        }
        let text = options.name.map_or_else(|| member.to_string(), |name| name.value());
        declarations.push(match options.ttl.as_ref().map(|ttl| duration(ttl, &krate)).transpose()? {
            None => quote!(#krate::state::Declare::declare(&mut self.#member, #text, declarations);),
            Some(ttl) => quote! {
                let ttl = #krate::state::StateTtl::from(#ttl);
                #krate::state::DeclareExpiring::declare(&mut self.#member, #text, ttl, declarations);
            },
        });
    }
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #krate::state::State for #name #type_generics #where_clause {
            fn declare<__Key: #krate::state::StateKey>(
                &mut self,
                declarations: &mut #krate::state::Declarations<__Key>,
            ) {
                #(#declarations)*
                let _ = declarations;
            }
        }
    })
}

/// Units of a time to live, and their milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The expression of a time to live: what stands there, or the duration that a text says.
fn duration(ttl: &Expr, krate: &Path) -> Result<TokenStream> {
    let Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) = ttl else { return Ok(quote!(#ttl)) };
    let value = text.value();
    let digits = value.len() - value.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = value.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim_start());
    let milliseconds =
        number.parse::<u64>().ok().zip(unit).and_then(|(number, (_, of))| number.checked_mul(*of));
    match milliseconds {
        Some(milliseconds) if milliseconds > 0 => {
            Ok(quote!(#krate::state::StateTtl::new(::core::time::Duration::from_millis(#milliseconds))))
        }
        _ => Err(Error::new_spanned(
            text,
            "a time to live is a number above zero and a unit (ms, s, m, h or d), such as \"1h\", or an expression of type \
             Duration or StateTtl",
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_time_to_live_is_a_number_with_a_unit_or_an_expression() {
        let krate: Path = syn::parse_quote!(krate);
        let read =
            |text: &str| duration(&syn::parse_str(text).unwrap(), &krate).map(|tokens| tokens.to_string());
        for (text, milliseconds) in [
            ("\"250ms\"", "250u64"),
            ("\"2s\"", "2000u64"),
            ("\"30 m\"", "1800000u64"),
            ("\"7d\"", "604800000u64"),
        ] {
            assert!(read(text).unwrap().contains(milliseconds), "{text}");
        }
        assert_eq!(read("self . keep").unwrap(), "self . keep");
        for text in ["\"\"", "\"h\"", "\"0s\"", "\"1 hour\"", "\"-1h\"", "\"99999999999999999d\""] {
            assert!(read(text).unwrap_err().to_string().contains("such as \"1h\""), "{text}");
        }
    }
}
