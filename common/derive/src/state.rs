//! `#[derive(State)]`: declares every field that is state, by its name and in order.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, Result};

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
        let options = Options::read(&field.attrs, "state", &["skip", "name"])?;
        let Some(member) = &field.ident else { continue };
        if !options.skip {
            let text = options.name.map_or_else(|| member.to_string(), |name| name.value());
            declarations
                .push(quote!(#krate::state::Declare::declare(&mut self.#member, #text, declarations);));
        }
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
