//! What belongs to the machine and never to a recipe: where to compute, with how many threads, where results and
//! downloads are kept. Of what says so the first one counts: the command line, the environment, the nearest
//! `minic.toml` at or above the folder of the recipe, the user's own.

use crate::device::{Choice, DeviceArgs};
use crate::output::{Exit, Failure, Output};
use crate::recipe::count;
use minic_grammar::render::{self, LineIndex};
use minic_grammar::{Diagnostic, Sources, Span, nearest};
use minic_runtime::hub::HubSettings;
use minic_runtime::threads;
use serde::Serialize;
use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub const FILE: &str = "minic.toml";

/// No such file is longer.
const LONGEST: u64 = 1 << 20;

const MOST_THREADS: u64 = 1024;

struct Key {
    name: &'static str,
    /// Environment variables that say the same; the first one that is set counts.
    variables: &'static [&'static str],
    form: Form,
}

/// What a value has to be.
#[derive(Clone, Copy)]
enum Form {
    Device,
    Folder,
    Threads,
    Flag,
}

const KEYS: &[Key] = &[
    Key { name: "device", variables: &["MINIC_DEVICE"], form: Form::Device },
    Key { name: "store", variables: &["MINIC_STORE"], form: Form::Folder },
    Key { name: "threads", variables: &["RAYON_NUM_THREADS"], form: Form::Threads },
    Key {
        name: "hub_cache",
        variables: &[HUB_CACHE, "HUGGINGFACE_HUB_CACHE", "HF_HOME"],
        form: Form::Folder,
    },
    Key { name: "offline", variables: &[OFFLINE], form: Form::Flag },
];

/// Those of the hub's own programs.
const HUB_CACHE: &str = "HF_HUB_CACHE";
const OFFLINE: &str = "HF_HUB_OFFLINE";

/// A value, and what said so: `--store`, `MINIC_STORE`, `/me/minic.toml:3`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    value: String,
    from: String,
}

/// One line of `minic doctor`.
#[derive(Debug, Serialize)]
pub struct Setting {
    pub name: &'static str,
    pub value: String,
    pub from: String,
}

/// What a command line leaves to the machine.
pub struct Wanted<'a> {
    /// Where the search for `minic.toml` begins.
    pub folder: PathBuf,
    pub device: Option<&'a mut DeviceArgs>,
    pub store: Option<&'a mut Option<PathBuf>>,
    /// `--threads`
    pub threads: Option<usize>,
}

impl<'a> Wanted<'a> {
    pub fn at(folder: PathBuf) -> Wanted<'a> {
        Wanted { folder, device: None, store: None, threads: None }
    }

    /// Of a command without a recipe.
    pub fn here() -> Wanted<'a> {
        Wanted::at(PathBuf::new())
    }

    pub fn computes(self, device: &'a mut DeviceArgs) -> Wanted<'a> {
        Wanted { device: Some(device), ..self }
    }

    pub fn keeps(self, store: &'a mut Option<PathBuf>) -> Wanted<'a> {
        Wanted { store: Some(store), ..self }
    }
}

/// The settings that something was said about.
#[derive(Default)]
pub struct Machine {
    told: BTreeMap<&'static str, Told>,
}

impl Machine {
    /// Looks for settings, and makes them those of the process and of a command line that leaves them open. To be
    /// called before any thread is started.
    pub fn settle(wanted: Wanted, output: &Output) -> Result<Machine, Failure> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        KEYS.iter().flat_map(|key| key.variables).try_for_each(|name| is_text(name, env::var_os(name)))?;
        let mut told = read_files(&files(&wanted.folder, &variable), variable("HOME").as_deref(), output)?;
        told.extend(of_environment(&variable)?);
        let mut machine = Machine { told };
        if let Some(device) = wanted.device {
            machine.fill_device(device)?;
        }
        if let Some(store) = wanted.store {
            machine.fill_store(store);
        }
        machine.tell_the_hub();
        machine.start_threads(wanted.threads)?;
        Ok(machine)
    }

    fn value(&self, key: &str) -> Option<&str> {
        self.told.get(key).map(|told| told.value.as_str())
    }

    fn fill_device(&self, device: &mut DeviceArgs) -> Result<(), Failure> {
        if let Some(choice) = self.value("device").map(str::parse::<Choice>).transpose().map_err(wrong)? {
            device.fill(choice);
        }
        Ok(())
    }

    fn fill_store(&mut self, store: &mut Option<PathBuf>) {
        match store {
            Some(given) => self.on_command_line("store", given.display().to_string()),
            None => *store = self.value("store").map(PathBuf::from),
        }
    }

    fn on_command_line(&mut self, key: &'static str, value: String) {
        self.told.insert(key, Told { value, from: format!("--{key}") });
    }

    fn start_threads(&mut self, given: Option<usize>) -> Result<(), Failure> {
        if let Some(threads) = given {
            self.on_command_line("threads", threads.to_string());
        }
        let Some(threads) = self.value("threads").and_then(|n| n.parse().ok()) else { return Ok(()) };
        threads::start(threads).map_err(|error| {
            Failure::new(Exit::World, format!("{threads} threads cannot be started: {error}"))
        })
    }

    /// By the variables that the hub's settings are read from. What the environment says stands there already.
    fn tell_the_hub(&self) {
        let value = |key| self.value(key).filter(|_| !self.is_from_environment(key));
        // SAFETY: no thread has been started.
        unsafe {
            if let Some(cache) = value("hub_cache") {
                env::set_var(HUB_CACHE, cache);
            }
            if value("offline") == Some("true") {
                env::set_var(OFFLINE, "1");
            }
        }
    }

    fn is_from_environment(&self, name: &str) -> bool {
        let key = KEYS.iter().find(|key| key.name == name);
        key.zip(self.told.get(name)).is_some_and(|(key, told)| key.variables.contains(&told.from.as_str()))
    }

    /// Every setting as it holds, and what said so.
    pub fn settings(&self) -> Vec<Setting> {
        let hub = HubSettings::from_env();
        let setting = |key: &Key| {
            let value = match key.name {
                "device" => self.value(key.name).unwrap_or("auto").to_string(),
                "store" => self.value(key.name).unwrap_or(".minic/store, beside the recipe").to_string(),
                "threads" => threads::count().to_string(),
                "hub_cache" => hub.cache.display().to_string(),
                _ => hub.offline.to_string(),
            };
            let from = self.told.get(key.name).map_or("default".to_string(), |told| told.from.clone());
            Setting { name: key.name, value, from }
        };
        KEYS.iter().map(setting).collect()
    }
}

fn wrong(message: String) -> Failure {
    Failure::new(Exit::Input, message)
}

/// A value that is none would be passed over.
fn is_text(name: &str, value: Option<OsString>) -> Result<(), Failure> {
    match value.map(OsString::into_string) {
        Some(Err(value)) => Err(wrong(format!("{name}={}: is not UTF-8 text", value.display()))
            .help(format!("give {name} another value, or unset it"))),
        Some(Ok(_)) | None => Ok(()),
    }
}

/// The user's file and the nearest one, which counts for more, as far as they are there.
fn files(folder: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
    let users = variable("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let users = users.map(|folder| folder.join("minic").join(FILE)).filter(|path| path.is_file());
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    let nearest = folder.ancestors().map(|above| above.join(FILE)).find(|path| path.is_file());
    users.into_iter().chain(nearest).collect()
}

fn read_files(
    files: &[PathBuf],
    home: Option<&str>,
    output: &Output,
) -> Result<BTreeMap<&'static str, Told>, Failure> {
    let mut told = BTreeMap::new();
    for path in files {
        let file = text(path)?;
        let bytes = minic_runtime::input::read(path, LONGEST)?;
        let content = String::from_utf8(bytes).map_err(|_| wrong(format!("{file}: is not UTF-8 text")))?;
        match parse(&file, &content, home) {
            Ok(settings) => told.extend(settings),
            Err(found) => {
                let sources = Sources::new(&file, &content);
                output.diagnostics(&sources, &found);
                let failure = wrong(format!("{file}: {}", count(found.len(), "error")));
                return Err(failure.diagnostics(render::to_json(&sources, &found)));
            }
        }
    }
    Ok(told)
}

/// Relative paths of the file are completed by it.
fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(String::from).ok_or_else(|| {
        wrong(format!("{}: the name of a folder above it is not UTF-8 text", path.display()))
            .help("rename the folder, or put the file elsewhere")
    })
}

/// The settings of a file, or everything that is wrong with it.
fn parse(
    file: &str,
    text: &str,
    home: Option<&str>,
) -> Result<BTreeMap<&'static str, Told>, Vec<Diagnostic>> {
    let table = DeTable::parse(text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().lines().next().unwrap_or("is not TOML").to_string();
        vec![
            Diagnostic::new("", Span::new(span.start, span.end), message)
                .help("a line is `key = value`, and texts are quoted: `device = \"cpu\"`"),
        ]
    })?;
    let lines = LineIndex::new(text);
    let (mut told, mut found) = (BTreeMap::new(), Vec::new());
    for (name, value) in table.get_ref() {
        let Some(key) = KEYS.iter().find(|key| key.name == name.get_ref()) else {
            found.push(unknown(name));
            continue;
        };
        let folder = Path::new(file).parent().unwrap_or(Path::new(""));
        match key.form.read(value.get_ref(), folder, home) {
            Some(value) => {
                let from = format!("{file}:{}", lines.position(name.span().start).line);
                told.insert(key.name, Told { value, from });
            }
            None => found.push(
                Diagnostic::new("", span(value), format!("`{}` cannot be this", key.name))
                    .label(format!("expected {}", key.form.expected()))
                    .help(format!("as in `{} = {}`", key.name, key.form.example())),
            ),
        }
    }
    minic_grammar::diagnostic::sort(&mut found);
    if found.is_empty() { Ok(told) } else { Err(found) }
}

fn span<T>(spanned: &Spanned<T>) -> Span {
    Span::new(spanned.span().start, spanned.span().end)
}

fn unknown(name: &Spanned<std::borrow::Cow<str>>) -> Diagnostic {
    let names = || KEYS.iter().map(|key| key.name);
    let all = names().collect::<Vec<_>>().join(", ");
    let help = match nearest(name.get_ref(), names()) {
        Some(near) => format!("did you mean `{near}`? The settings are {all}"),
        None => format!("the settings are {all}; everything else belongs to the recipe"),
    };
    Diagnostic::new("", span(name), format!("there is no setting `{}`", name.get_ref()))
        .label("not known")
        .help(help)
}

impl Form {
    fn expected(self) -> String {
        match self {
            Form::Device => "\"auto\", \"cpu\", \"vulkan\" or \"vulkan:N\"".into(),
            Form::Folder => "a quoted path".into(),
            Form::Threads => format!("a number from 1 to {MOST_THREADS}"),
            Form::Flag => "true or false".into(),
        }
    }

    fn example(self) -> &'static str {
        match self {
            Form::Device => "\"vulkan:0\"",
            Form::Folder => "\"../store\"",
            Form::Threads => "8",
            Form::Flag => "true",
        }
    }

    /// The value as text; paths are made absolute, relative ones from `folder` on.
    fn read(self, value: &DeValue, folder: &Path, home: Option<&str>) -> Option<String> {
        match (self, value) {
            (Form::Device, DeValue::String(text)) => text.parse::<Choice>().ok().map(|_| text.to_string()),
            (Form::Folder, DeValue::String(text)) if !text.is_empty() => {
                let path = match (text.strip_prefix("~/"), home) {
                    (Some(rest), Some(home)) => Path::new(home).join(rest),
                    _ => folder.join(&**text),
                };
                Some(path.display().to_string())
            }
            (Form::Threads, DeValue::Integer(n)) => {
                let n = u64::from_str_radix(n.as_str(), n.radix()).ok()?;
                (1..=MOST_THREADS).contains(&n).then(|| n.to_string())
            }
            (Form::Flag, DeValue::Boolean(flag)) => Some(flag.to_string()),
            _ => None,
        }
    }
}

/// What environment variables say. Those of other programs are read as these read them.
fn of_environment(
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<&'static str, Told>, Failure> {
    let mut told = BTreeMap::new();
    for key in KEYS {
        let set = key.variables.iter().find_map(|name| Some((*name, variable(name)?)));
        let Some((name, value)) = set else { continue };
        match key.form {
            Form::Device if value.parse::<Choice>().is_err() => {
                let message = format!("{name}={value}: expected {}", key.form.expected().replace('"', ""));
                return Err(wrong(message).help("`minic doctor` lists the devices"));
            }
            Form::Threads if value.parse().is_ok_and(|n: u64| n == 0) || value.parse::<u64>().is_err() => {}
            _ => _ = told.insert(key.name, Told { value, from: name.to_string() }),
        }
    }
    Ok(told)
}

/// `--threads N`, for clap.
pub fn parse_threads(text: &str) -> Result<usize, String> {
    let threads = text.parse().ok().filter(|n| (1..=MOST_THREADS as usize).contains(n));
    threads.ok_or_else(|| format!("expected {}", Form::Threads.expected()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> BTreeMap<&'static str, Told> {
        parse("/me/runs/minic.toml", text, Some("/me")).expect("settings")
    }

    #[test]
    fn settings_are_read_with_their_lines_and_paths_are_those_of_the_file() {
        let text = "# mine\ndevice = \"vulkan:1\"\nstore = \"../store\"\nthreads = 4\n\
                    hub_cache = \"~/hub\"\noffline = true\n";
        let told = told(text);
        let of = |key: &str| (told[key].value.as_str(), told[key].from.as_str());
        assert_eq!(of("device"), ("vulkan:1", "/me/runs/minic.toml:2"));
        assert_eq!(of("store"), ("/me/runs/../store", "/me/runs/minic.toml:3"));
        assert_eq!(of("threads"), ("4", "/me/runs/minic.toml:4"));
        assert_eq!(of("hub_cache").0, "/me/hub");
        assert_eq!(of("offline").0, "true");
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_with_its_place_and_how_to_mend_it() {
        let text =
            "devise = \"cpu\"\nthreads = 0\nstore = 3\noffline = \"yes\"\ndevice = \"tpu\"\nsamples = 3\n";
        let found = parse("minic.toml", text, None).expect_err("errors");
        let lines = LineIndex::new(text);
        let at: Vec<usize> = found.iter().map(|d| lines.position(d.span.start).line).collect();
        assert_eq!(at, [1, 2, 3, 4, 5, 6]);
        let help = |n: usize| found[n].help.as_deref().unwrap_or_default();
        assert!(help(0).contains("did you mean `device`"), "{}", help(0));
        assert!(help(5).contains("belongs to the recipe"), "{}", help(5));
        assert!(help(1).contains("threads = 8") && found[1].label.contains("1 to 1024"));
        let found = parse("minic.toml", "device = cpu\n", None).expect_err("no TOML");
        assert_eq!((found.len(), lines.position(found[0].span.start).line), (1, 1));
        assert!(found[0].help.as_deref().is_some_and(|help| help.contains("\"cpu\"")));
    }

    #[cfg(unix)]
    #[test]
    fn text_that_is_none_is_told_and_not_passed_over() {
        use std::os::unix::ffi::OsStringExt;
        let strange = || OsString::from_vec(b"/a\xff".to_vec());
        let failure = format!("{:?}", is_text("MINIC_STORE", Some(strange())).expect_err("no text"));
        assert!(failure.contains("MINIC_STORE=/a") && failure.contains("not UTF-8"), "{failure}");
        assert!(is_text("MINIC_STORE", Some("/a".into())).is_ok() && is_text("MINIC_STORE", None).is_ok());
        let failure = format!("{:?}", text(&Path::new(&strange()).join(FILE)).expect_err("no text"));
        assert!(failure.contains("minic.toml") && failure.contains("rename the folder"), "{failure}");
    }

    #[test]
    fn variables_of_the_environment_are_heeded_where_they_say_something() {
        let of = |set: &'static [(&'static str, &'static str)]| {
            let find = move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string());
            of_environment(&find)
        };
        let told =
            of(&[("MINIC_DEVICE", "cpu"), ("RAYON_NUM_THREADS", "x"), ("HF_HOME", "/hf")]).expect("some");
        assert_eq!(told.keys().copied().collect::<Vec<_>>(), ["device", "hub_cache"]);
        assert_eq!(told["hub_cache"].from, "HF_HOME");
        let failure = format!("{:?}", of(&[("MINIC_DEVICE", "tpu")]).expect_err("no device"));
        assert!(failure.contains("MINIC_DEVICE=tpu: expected auto, cpu, vulkan or vulkan:N"), "{failure}");
    }
}
