//! `thalweg config`: settings, where they come from, and what they mean.

use serde::Serialize;
use thalweg_common::config::{ConfigError, ConfigKey, Settings, keys};

use super::Session;
use crate::config_arguments::{ConfigCommand, ShowArguments};
use crate::exit::Exit;
use crate::table::{Align, Table};

/// A setting as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    key: &'static str,
    /// Nothing, if it is not set and has no default.
    value: Option<String>,
    origin: String,
}

/// What there is to say about a key.
#[derive(Debug, Serialize)]
struct Explained {
    key: &'static str,
    help: &'static str,
    form: String,
    default: Option<&'static str>,
    other_names: &'static [&'static str],
}

pub(super) fn run(session: &Session, command: ConfigCommand) -> anyhow::Result<Exit> {
    match command {
        ConfigCommand::Show(arguments) => show(session, &arguments),
        ConfigCommand::Explain { key } => {
            let key = keys::find(&key).ok_or_else(|| ConfigError::unknown(&key))?;
            session.output.result(&explained(key), explanation)?;
            Ok(Exit::Success)
        }
    }
}

fn show(session: &Session, arguments: &ShowArguments) -> anyhow::Result<Exit> {
    let settings = Settings::load(arguments.config.as_deref(), &arguments.settings)?;
    let shown = shown(&settings, arguments.all);
    session.output.result(&shown, |shown| text(shown))?;
    Ok(Exit::Success)
}

fn shown(settings: &Settings, all: bool) -> Vec<Shown> {
    let mut shown: Vec<Shown> = keys::all()
        .filter_map(|key| {
            let origin = settings.origin(key).map(ToString::to_string);
            let origin = origin.or_else(|| all.then(|| "default".to_owned()))?;
            Some(Shown {
                key: key.name,
                value: settings.configuration().text(key).map(str::to_owned),
                origin,
            })
        })
        .collect();
    shown.sort_by_key(|setting| setting.key);
    shown
}

fn text(shown: &[Shown]) -> String {
    if shown.is_empty() {
        return "Nothing is set; `thalweg config show --all` shows the defaults.\n".into();
    }
    let mut table = Table::new(&[("KEY", Align::Left), ("VALUE", Align::Left), ("ORIGIN", Align::Left)]);
    for setting in shown {
        table.row([
            setting.key.into(),
            setting.value.clone().unwrap_or_else(|| "-".into()),
            setting.origin.clone(),
        ]);
    }
    table.render()
}

fn explained(key: &'static ConfigKey) -> Explained {
    Explained {
        key: key.name,
        help: key.help(),
        form: key.kind.expectation(),
        default: key.default,
        other_names: key.aliases,
    }
}

fn explanation(explained: &Explained) -> String {
    let mut text = format!("{}\n  {}\n", explained.key, explained.help.replace("\n ", "\n  "));
    text.push_str(&format!("  Value:       {}\n", explained.form));
    text.push_str(&format!("  Default:     {}\n", explained.default.unwrap_or("none")));
    if !explained.other_names.is_empty() {
        text.push_str(&format!("  Other names: {}\n", explained.other_names.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_shown_with_its_origin_and_the_rest_on_demand() {
        let flags = ["heartbeat.interval=1s".to_owned(), "parallelism.default=4".to_owned()];
        let settings = Settings::layered(None, |_| None, &flags).expect("both are right");
        assert_eq!(
            text(&shown(&settings, false)),
            "KEY                  VALUE  ORIGIN\n\
             heartbeat.interval   1s     -D\n\
             parallelism.default  4      -D\n"
        );
        let all = shown(&settings, true);
        assert_eq!(all.len(), keys::all().count());
        let port = all.iter().find(|shown| shown.key == "jobmanager.rpc.port").expect("it is listed");
        assert_eq!((port.value.as_deref(), port.origin.as_str()), (Some("6123"), "default"));
        let unset = Settings::layered(None, |_| None, &[]).expect("nothing is set");
        assert!(text(&shown(&unset, false)).starts_with("Nothing is set"));
    }

    #[test]
    fn a_key_is_explained_by_any_of_its_names() {
        let key = keys::find("restart-strategy").expect("an older name");
        let text = explanation(&explained(key));
        assert!(text.starts_with("restart-strategy.type\n  "), "{text}");
        assert!(text.contains("  Value:       one of `none`, `fixed-delay`"), "{text}");
        assert!(text.contains("  Other names: restart-strategy\n"), "{text}");
    }
}
