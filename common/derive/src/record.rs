//! `#[derive(Record)]`: one `encode` and one `decode` per field, in order; an enum's variant number first.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Index, Path, Result, Type, Variant, parse_quote};

use crate::attributes::{DefaultValue, Options};

/// The code for the fields of a struct or of one variant.
struct FieldsCode {
    /// Statements that encode the bindings.
    encode: TokenStream,
    /// `{ a: decode, b: decode }` or `( decode, decode )`.
    construct: TokenStream,
    /// `Field::new(...)`s.
    schema: TokenStream,
    /// A pattern that binds every field: `{ a: field_0 }` or `( field_0 )`.
    pattern: TokenStream,
}

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let krate = Options::read(&input.attrs, "record", &["crate"])?.krate();
    let name = &input.ident;
    let text = name.to_string();
    let body = match &input.data {
        Data::Struct(data) => expand_struct(&krate, &text, &data.fields)?,
        Data::Enum(data) => {
            let variants = data.variants.iter().collect::<Vec<_>>();
            expand_enum(&krate, &text, &variants)?
        }
        Data::Union(_) => return Err(Error::new_spanned(name, "a union cannot be a record; use an enum")),
    };
    let mut generics = input.generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.bounds.push(parse_quote!(#krate::record::Record));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #krate::record::Record for #name #type_generics #where_clause {
            #body
        }
    })
}

fn expand_struct(krate: &Path, name: &str, fields: &Fields) -> Result<TokenStream> {
    let FieldsCode { encode, construct, schema, pattern } = fields_code(krate, fields)?;
    Ok(quote! {
        #[inline]
        fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
            let Self #pattern = self;
            #encode
        }

        #[inline]
        fn decode(bytes: &mut &[u8]) -> ::std::result::Result<Self, #krate::record::DecodeError> {
            ::std::result::Result::Ok(Self #construct)
        }

        fn schema() -> #krate::schema::Schema {
            #krate::schema::Schema::Struct { name: #name.into(), fields: ::std::vec![#schema] }
        }
    })
}

fn expand_enum(krate: &Path, name: &str, variants: &[&Variant]) -> Result<TokenStream> {
    let (mut encode_arms, mut decode_arms, mut schemas) = (Vec::new(), Vec::new(), Vec::new());
    for (number, Variant { attrs, ident: variant, fields, .. }) in (0u32..).zip(variants) {
        let former_names = Options::read(attrs, "record", &["rename_from"])?.rename_from;
        let FieldsCode { encode, construct, schema, pattern } = fields_code(krate, fields)?;
        let text = variant.to_string();
        encode_arms.push(quote! {
            Self::#variant #pattern => {
                #krate::record::Record::encode(&#number, out);
                #encode
            }
        });
        decode_arms.push(quote!(#number => ::std::result::Result::Ok(Self::#variant #construct),));
        let mut described = quote!(#krate::schema::Variant::new(#text, ::std::vec![#schema]));
        if !former_names.is_empty() {
            described = quote!(#described.with_former_names(&[#(#former_names),*]));
        }
        schemas.push(described);
    }
    Ok(quote! {
        #[inline]
        fn encode(&self, out: &mut ::std::vec::Vec<u8>) {
            match self {
                #(#encode_arms)*
            }
        }

        #[inline]
        fn decode(bytes: &mut &[u8]) -> ::std::result::Result<Self, #krate::record::DecodeError> {
            match <u32 as #krate::record::Record>::decode(bytes)? {
                #(#decode_arms)*
                other => ::std::result::Result::Err(#krate::record::DecodeError::unknown_variant::<Self>(other)),
            }
        }

        fn schema() -> #krate::schema::Schema {
            #krate::schema::Schema::Enum { name: #name.into(), variants: ::std::vec![#(#schemas),*] }
        }
    })
}

fn fields_code(krate: &Path, fields: &Fields) -> Result<FieldsCode> {
    let (mut encode, mut decode, mut schema, mut pattern) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (position, field) in fields.iter().enumerate() {
        let options = Options::read(&field.attrs, "record", &["serde", "default", "rename_from"])?;
        let binding = format_ident!("field_{position}");
        let member = match &field.ident {
            Some(name) => quote!(#name),
            None => {
                let index = Index::from(position);
                quote!(#index)
            }
        };
        let text = field.ident.as_ref().map_or_else(|| position.to_string(), ToString::to_string);
        let kind = &field.ty;
        let (write, read, describe) = if options.serde {
            (
                quote!(#krate::record::encode_serde(#binding, out);),
                quote!(#krate::record::decode_serde::<#kind>(bytes)?),
                quote!(#krate::record::serde_schema::<#kind>()),
            )
        } else {
            (
                quote!(#krate::record::Record::encode(#binding, out);),
                quote!(<#kind as #krate::record::Record>::decode(bytes)?),
                quote!(<#kind as #krate::record::Record>::schema()),
            )
        };
        encode.push(write);
        decode.push(quote!(#member: #read));
        let mut described = quote!(#krate::schema::Field::new(#text, #describe));
        if let Some(default) = &options.default {
            let encoded = default_code(krate, kind, default, options.serde);
            described = quote!(#described.with_default(#encoded));
        }
        if !options.rename_from.is_empty() {
            let former_names = &options.rename_from;
            described = quote!(#described.with_former_names(&[#(#former_names),*]));
        }
        schema.push(described);
        pattern.push(quote!(#member: #binding));
    }
    Ok(FieldsCode {
        encode: quote!(#(#encode)*),
        // Braces with positions work for tuples and units too.
        construct: quote!({ #(#decode),* }),
        schema: quote!(#(#schema),*),
        pattern: quote!({ #(#pattern),* }),
    })
}

/// An expression of the encoding of a field's default.
fn default_code(krate: &Path, kind: &Type, default: &DefaultValue, is_serde: bool) -> TokenStream {
    let value = match default {
        DefaultValue::OfType => quote!(<#kind as ::std::default::Default>::default()),
        DefaultValue::Function(function) => quote!(#function()),
    };
    let encode =
        if is_serde { quote!(#krate::record::encode_serde) } else { quote!(#krate::record::Record::encode) };
    quote!({
        let value: #kind = #value;
        let mut encoding = ::std::vec::Vec::new();
        #encode(&value, &mut encoding);
        encoding
    })
}
