//! What the documentation and the files for deployment say exists: every command with its flags, every example with its options, every
//! setting.
#![allow(clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use thalweg_common::config::{Configuration, keys};

use crate::arguments::Arguments;

/// What `thalweg::run` takes of every job's executable, in front of its own options.
const OF_EVERY_JOB: [&str; 5] = ["detach", "jobmanager", "name", "parallelism", "properties"];

/// Where example jobs are, and the package of those.
const EXAMPLES: [(&str, &str); 2] =
    [("examples", "thalweg-examples"), ("examples/aws", "thalweg-examples-aws")];

/// The workspace. Tests run in the directory of their package; where they were compiled may be another checkout.
fn root() -> PathBuf {
    "..".into()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The files below with this ending.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("readable").path()) {
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A text of a page, and where it stands.
struct Piece {
    place: String,
    text: String,
    /// The language of the block in which it is a line; empty for a span of code in a sentence.
    language: String,
}

/// Lines of code blocks and spans of code of all pages.
fn pieces() -> Vec<Piece> {
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(files(&root().join("deploy"), "md"));
    assert!(pages.len() > 15, "the pages are found: {pages:?}");
    let mut pieces = Vec::new();
    for page in pages {
        let mut language: Option<String> = None;
        for (line, text) in read(&page).lines().enumerate() {
            let place = format!("{}:{}", page.display(), line + 1);
            if let Some(fence) = text.trim_start().strip_prefix("```") {
                language = if language.is_some() { None } else { Some(fence.to_owned()) };
            } else if let Some(language) = &language {
                pieces.push(Piece { place, text: text.trim().to_owned(), language: language.clone() });
            } else {
                let spans = text.split('`').skip(1).step_by(2);
                pieces.extend(spans.map(|span| Piece {
                    place: place.clone(),
                    text: span.to_owned(),
                    language: String::new(),
                }));
            }
        }
    }
    pieces
}

/// The words of a command, without what a comment says.
fn words(text: &str) -> Vec<&str> {
    let text = text.split(" # ").next().unwrap_or_default();
    text.trim_start_matches("sudo ").split_whitespace().filter(|word| *word != "&").collect()
}

/// The names of flags among words, up to what belongs to somebody else.
fn flags<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let own = words.iter().take_while(|word| **word != "--");
    own.filter_map(|word| word.strip_prefix("--"))
        .map(|flag| flag.split('=').next().unwrap_or(flag))
        .collect()
}

/// What is wrong with a command of `thalweg`.
fn wrong_command(words: &[&str]) -> Option<String> {
    let root = Arguments::command();
    let mut command = &root;
    let mut known: BTreeSet<&str> = ["help", "version"].into();
    let own = |command: &clap::Command| -> Vec<String> {
        command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
    };
    let mut longs = own(command);
    let mut rest = &words[1..];
    while let Some((word, more)) = rest.split_first() {
        rest = more;
        if let Some(flag) = word.strip_prefix("--") {
            // The values of global flags in front of a command.
            if !flag.is_empty() && command.has_subcommands() && flag != "json" && !flag.contains('=') {
                rest = rest.get(1..).unwrap_or_default();
            }
            continue;
        }
        match command.find_subcommand(word) {
            Some(found) => {
                command = found;
                longs.extend(own(command));
            }
            None if *word == "help" => return None,
            None if command.get_positionals().next().is_none() && command.has_subcommands() => {
                return Some(format!("there is no command `{word}`"));
            }
            None => break,
        }
    }
    known.extend(longs.iter().map(String::as_str));
    let unknown = flags(words).into_iter().find(|flag| !known.contains(flag));
    if let Some(unknown) = unknown {
        return Some(format!("there is no flag --{unknown}"));
    }
    let settings = words.windows(2).filter(|pair| pair[0] == "-D").map(|pair| pair[1]);
    settings
        .filter_map(|setting| setting.split_once('='))
        .find_map(|(key, value)| Configuration::new().set(key, value).err().map(|error| error.to_string()))
}

/// What is wrong with a command of `cargo`, as far as it is about this repository.
fn wrong_cargo(words: &[&str]) -> Option<String> {
    if words.get(1) == Some(&"xtask") {
        let help = read(&root().join("xtask/src/main.rs"));
        let command = words.get(2)?;
        let is_known = help.contains(&format!("Some(\"{command}\")"));
        return (!is_known).then(|| format!("there is no `cargo xtask {command}`"));
    }
    let value = |flag: &str| Some(words.windows(2).find(|pair| pair[0] == flag)?[1]);
    let example = value("--example")?;
    let Some((_, package)) = source_of(example) else {
        return Some(format!("there is no example `{example}`"));
    };
    // Without its package cargo compiles the features that any other package needs.
    if value("-p") != Some(package) {
        return Some(format!("`{example}` is to be built with `-p {package}`"));
    }
    let own = words.iter().position(|word| *word == "--").map_or(&[][..], |at| &words[at + 1..]);
    wrong_option(example, own)
}

/// The program of an example, and its package.
fn source_of(example: &str) -> Option<(PathBuf, &'static str)> {
    let places =
        EXAMPLES.map(|(folder, package)| (root().join(folder).join(format!("{example}.rs")), package));
    places.into_iter().find(|(place, _)| place.is_file())
}

/// What is wrong with what an example is given.
fn wrong_option(example: &str, given: &[&str]) -> Option<String> {
    let Some((source, _)) = source_of(example) else {
        return Some(format!("there is no example `{example}`"));
    };
    let source = read(&source);
    let is_known = |flag: &&str| {
        OF_EVERY_JOB.contains(flag) || source.contains(&format!("\n    {}: ", flag.replace('-', "_")))
    };
    let unknown = flags(given).into_iter().find(|flag| !is_known(flag))?;
    Some(format!("`{example}` has no option --{unknown}"))
}

/// What is wrong with a text that looks like a setting: the first part of its name is that of some.
fn wrong_setting(text: &str) -> Option<String> {
    let name = text.split([':', '=', ' ']).next()?;
    let is_name = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !part.starts_with(char::is_numeric)
    };
    let parts: Vec<&str> = name.split('.').collect();
    let is_family = keys::all().any(|key| key.name.split('.').next() == parts.first().copied());
    if parts.len() < 2 || !parts.iter().all(|part| is_name(part)) || !is_family {
        return None;
    }
    // Files are called so too.
    if matches!(parts.last(), Some(&("yaml" | "json" | "md" | "rs"))) {
        return None;
    }
    let is_known = keys::all().any(|key| key.name == name || key.aliases.contains(&name));
    (!is_known).then(|| format!("there is no setting `{name}`"))
}

/// Whether the example that is told of at this place reads a runtime property of this name.
fn is_property(place: &str, name: &str) -> bool {
    let example = Path::new(place).file_stem().and_then(|stem| stem.to_str());
    example.and_then(source_of).is_some_and(|(source, _)| read(&source).contains(&format!("\"{name}\"")))
}

#[test]
fn every_command_example_and_setting_of_the_documentation_exists() {
    let mut wrong = Vec::new();
    let mut checked = BTreeSet::new();
    for Piece { place, text, language } in pieces() {
        if !matches!(language.as_str(), "" | "sh") {
            continue;
        }
        let words = words(&text);
        let problem = match words.first() {
            Some(&"thalweg") if words.len() > 1 => {
                checked.insert("thalweg");
                wrong_command(&words).or_else(|| {
                    let binary =
                        words.iter().find_map(|word| word.strip_prefix("target/release/examples/"))?;
                    let given = words.iter().position(|word| *word == "--")?;
                    wrong_option(binary, &words[given + 1..])
                })
            }
            Some(&"cargo") => {
                checked.insert("cargo");
                wrong_cargo(&words)
            }
            _ if language.is_empty() => {
                checked.insert("settings");
                wrong_setting(&text).filter(|_| !is_property(&place, &text))
            }
            _ => None,
        };
        wrong.extend(problem.map(|problem| format!("{place}: `{text}`: {problem}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(checked.len(), 3, "all kinds are found: {checked:?}");
}

#[test]
fn every_example_has_a_page_and_every_page_an_example() {
    let stems = |directory: &str, ending: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(root().join(directory)).expect("it is there");
        let files = entries.map(|entry| entry.expect("readable").path());
        let of = files.filter(|path| path.extension().is_some_and(|extension| extension == ending));
        of.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    };
    let pages = stems("docs/examples", "md");
    for example in stems(EXAMPLES[0].0, "rs") {
        assert!(pages.contains(&example), "docs/examples/{example}.md is missing");
    }
    let index = read(&root().join("docs/README.md"));
    for page in pages {
        assert!(source_of(&page).is_some(), "docs/examples/{page}.md is about no example");
        assert!(index.contains(&format!("(examples/{page}.md)")), "docs/README.md does not lead to {page}");
    }
}

#[test]
fn settings_in_yaml_are_valid() {
    let mut blocks = 0;
    let mut pages = files(&root().join("docs"), "md");
    pages.extend(files(&root().join("deploy"), "md"));
    for page in pages {
        for block in read(&page).split("```yaml\n").skip(1) {
            let block = block.split("```").next().unwrap_or_default();
            let found = Configuration::from_yaml(block);
            assert!(found.is_ok(), "{}: {found:?} in\n{block}", page.display());
            blocks += 1;
        }
    }
    assert!(blocks > 1, "the blocks are found");
    let installed = Configuration::from_yaml(&read(&root().join("deploy/config.yaml")));
    assert!(installed.is_ok(), "deploy/config.yaml: {installed:?}");
}

#[test]
fn containers_have_valid_settings() {
    let compose = read(&root().join("deploy/docker/compose.yaml"));
    for event in saphyr_parser::Parser::new_from_str(&compose) {
        assert!(event.is_ok(), "compose.yaml is no YAML: {event:?}");
    }
    let services: Vec<&str> = compose
        .lines()
        .skip_while(|line| *line != "services:")
        .take_while(|line| *line != "volumes:")
        .filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'))
        .filter(|name| !name.starts_with(' '))
        .collect();
    assert_eq!(services, ["jm-1", "jm-2", "jm-3", "tm-1", "tm-2", "client"]);
    let blocks: Vec<&str> = compose.split("THALWEG_PROPERTIES: |\n").skip(1).collect();
    assert_eq!(blocks.len(), 2, "one of job managers, one of task managers");
    for block in blocks {
        let lines: Vec<&str> = block.lines().map_while(|line| line.strip_prefix("        ")).collect();
        let found = Configuration::from_yaml(&lines.join("\n"));
        let found = found.unwrap_or_else(|error| panic!("{error} in {lines:?}"));
        let addresses = found.text(&keys::JOB_MANAGER_PEERS).or(found.text(&keys::JOB_MANAGER_ADDRESS));
        for name in ["jm-1:6123", "jm-2:6123", "jm-3:6123"] {
            assert!(addresses.is_some_and(|text| text.contains(name)), "{name} is missing in {addresses:?}");
        }
    }
}

#[test]
fn settings_of_machines_on_ec2_exist() {
    let mut settings = 0;
    for file in files(&root().join("deploy/terraform"), "tf") {
        for line in read(&file).lines() {
            let Some((name, _)) = line.trim().strip_prefix('"').and_then(|line| line.split_once("\" "))
            else {
                continue;
            };
            if line.contains(" = ") && name.contains('.') && !name.contains(' ') {
                let is_known = keys::all().any(|key| key.name == name || key.aliases.contains(&name));
                assert!(is_known, "{}: there is no setting `{name}`", file.display());
                settings += 1;
            }
        }
    }
    assert!(settings > 15, "the settings are found: {settings}");
}
