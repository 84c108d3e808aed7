//! `--device auto|cpu|vulkan[:N]` and `--precision f32|f16|bf16`

use crate::output::{Exit, Failure, Output};
use crate::system;
use minic_runtime::device::Device;
use minic_runtime::device::cpu::Cpu;
use minic_runtime::device::vulkan::{Found, Gpu, Limits, Vulkan, adapters_found};
use minic_runtime::shader::half::is_cooperative;
use minic_runtime::shader::{Caps, Precision};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

#[derive(clap::Args)]
pub struct DeviceArgs {
    /// Where to compute: auto, cpu, vulkan or vulkan:N; by default as minic.toml says, or auto
    #[arg(long, value_name = "DEVICE")]
    device: Option<Choice>,
    /// What the factors of products are rounded to on a Vulkan device: f32, f16 or bf16; by default f16 where it has
    /// cooperative matrices for it, else f32. Sums are f32, and proofs and repairs round nothing
    #[arg(long, value_name = "TYPE", value_parser = parse_precision)]
    precision: Option<Precision>,
}

fn parse_precision(text: &str) -> Result<Precision, String> {
    let all = [Precision::F32, Precision::F16, Precision::Bf16];
    all.into_iter().find(|p| p.name() == text).ok_or_else(|| "expected f32, f16 or bf16".into())
}

impl DeviceArgs {
    fn choice(&self) -> Choice {
        self.device.unwrap_or_default()
    }

    /// What is computed on where the command line does not say.
    pub fn fill(&mut self, choice: Choice) {
        self.device.get_or_insert(choice);
    }

    /// The device that they name; what of it is not used is told.
    pub fn open(&self, output: &Output) -> Result<Box<dyn Device>, Failure> {
        let Some(number) = self.choice().adapter(&|| self.choice().adapters())? else {
            return match self.precision {
                None | Some(Precision::F32) => Ok(Box::new(Cpu)),
                Some(other) => {
                    let message = format!("--precision {}: the CPU device computes in f32", other.name());
                    Err(Failure::new(Exit::Input, message).help("name a Vulkan device with `--device`"))
                }
            };
        };
        let bf16 = self.precision == Some(Precision::Bf16);
        let gpu = Gpu::open(number, Limits { bf16, ..Limits::default() })?;
        if let Some(why) = &gpu.distrusted {
            output.note(&format!("{}: cooperative matrices are not used: {why}", gpu.found.name));
        }
        let precision = self.precision.unwrap_or_else(|| default_precision(&gpu.caps));
        let device = Vulkan::new(Arc::new(gpu), precision);
        output.note(&format!("computes on {}", device.kind()));
        Ok(Box::new(device))
    }

    /// Bytes of memory that it has, where somebody says, and whether it holds weights in 16 bits.
    pub fn memory(&self) -> Result<(Option<u64>, bool), Failure> {
        let found = self.choice().adapters();
        Ok(match self.choice().adapter(&|| found.clone())? {
            Some(number) => {
                let precision = self.precision.unwrap_or_else(|| default_precision(&found[number].caps));
                (Some(found[number].memory), precision != Precision::F32)
            }
            None => {
                let memory = system::memory();
                (memory.map(|memory| memory.limit.unwrap_or(memory.total)), false)
            }
        })
    }

    /// The words of the command line that differ from the defaults.
    pub fn words(&self) -> Vec<String> {
        let device = match self.choice() {
            Choice::Auto => None,
            Choice::Cpu => Some("--device cpu".to_string()),
            Choice::Vulkan(None) => Some("--device vulkan".to_string()),
            Choice::Vulkan(Some(number)) => Some(format!("--device vulkan:{number}")),
        };
        device.into_iter().chain(self.precision.map(|p| format!("--precision {}", p.name()))).collect()
    }

    /// Refuses an adapter that is not there.
    pub fn exists(&self) -> Result<(), Failure> {
        self.choice().adapter(&|| self.choice().adapters()).map(drop)
    }

    /// What shaders are written for: the adapter that they name, or what minic needs at least.
    pub fn shading(&self) -> Result<(Caps, Precision), Failure> {
        let found = self.choice().adapters();
        let number = self.choice().adapter(&|| found.clone())?;
        let caps = number.map_or(Caps::least(), |number| found[number].caps.clone());
        let precision = self.precision.unwrap_or_else(|| default_precision(&caps));
        Ok((caps, precision))
    }
}

/// f16 where the device multiplies it in its matrix units.
pub fn default_precision(caps: &Caps) -> Precision {
    if is_cooperative(caps, Precision::F16) { Precision::F16 } else { Precision::F32 }
}

/// Where a run computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The first real GPU, or the CPU where there is none.
    #[default]
    Auto,
    Cpu,
    /// The adapter of this number; the first real GPU, or else the first adapter.
    Vulkan(Option<usize>),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        let number = |n: &str| n.parse().map_err(|_| format!("`{n}` is not the number of an adapter"));
        match text.split_once(':') {
            None if text == "auto" => Ok(Choice::Auto),
            None if text == "cpu" => Ok(Choice::Cpu),
            None if text == "vulkan" => Ok(Choice::Vulkan(None)),
            Some(("vulkan", n)) => number(n).map(|n| Choice::Vulkan(Some(n))),
            _ => Err("expected auto, cpu, vulkan or vulkan:N".into()),
        }
    }
}

impl Choice {
    /// The number of the Vulkan adapter that it names; none for the CPU. Adapters are looked for only where they
    /// matter.
    fn adapter(self, found: &dyn Fn() -> Vec<Found>) -> Result<Option<usize>, Failure> {
        let real = |found: &[Found]| found.iter().position(|adapter| !adapter.caps.software);
        match self {
            Choice::Cpu => Ok(None),
            Choice::Auto => Ok(real(&found())),
            Choice::Vulkan(number) => {
                let found = found();
                let number = number.unwrap_or_else(|| real(&found).unwrap_or(0));
                if number < found.len() {
                    return Ok(Some(number));
                }
                let message = match found.len() {
                    0 => "there is no Vulkan adapter on this machine".to_string(),
                    n => format!("there is no Vulkan adapter {number}: there are {n}, from 0 on"),
                };
                Err(Failure::new(Exit::World, message)
                    .help("`minic doctor` lists them; `--device cpu` needs none"))
            }
        }
    }
}

impl Choice {
    /// Those that Vulkan names, as far as they matter.
    fn adapters(self) -> Vec<Found> {
        if self == Choice::Auto && !has_gpu() { Vec::new() } else { adapters_found() }
    }
}

/// Whether the system has a GPU at all, as far as that can be seen without loading a driver: what runs shaders on the
/// processor is large, and not what `auto` takes.
fn has_gpu() -> bool {
    const FILES: &[&str] = &["/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/mali0"];
    !cfg!(target_os = "linux") || FILES.iter().any(|file| Path::new(file).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_documented() {
        let read = |text: &str| text.parse::<Choice>();
        assert_eq!(read("auto"), Ok(Choice::Auto));
        assert_eq!(read("cpu"), Ok(Choice::Cpu));
        assert_eq!(
            [read("vulkan"), read("vulkan:1")],
            [Ok(Choice::Vulkan(None)), Ok(Choice::Vulkan(Some(1)))]
        );
        for wrong in ["", "gpu", "cpu:0", "vulkan:", "vulkan:x", "vulkan:-1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_precision("bf16"), Ok(Precision::Bf16));
        assert!(parse_precision("fp8").is_err());
    }

    #[test]
    fn auto_takes_no_software_and_a_number_takes_what_it_names() {
        let adapter = |software| Found {
            name: String::new(),
            driver: String::new(),
            kind: "",
            memory: 0,
            caps: Caps { software, ..Caps::least() },
        };
        let all = |software: &'static [bool]| move || software.iter().map(|s| adapter(*s)).collect();
        let of = |choice: Choice, software| choice.adapter(&all(software)).ok();
        assert_eq!(of(Choice::Auto, &[true]), Some(None));
        assert_eq!(of(Choice::Auto, &[true, false]), Some(Some(1)));
        assert_eq!(of(Choice::Cpu, &[false]), Some(None));
        assert_eq!(of(Choice::Vulkan(None), &[true, false]), Some(Some(1)));
        assert_eq!(of(Choice::Vulkan(None), &[true]), Some(Some(0)));
        assert_eq!(of(Choice::Vulkan(Some(0)), &[true, false]), Some(Some(0)));
        assert_eq!(of(Choice::Vulkan(Some(2)), &[true, false]), None);
        assert_eq!(of(Choice::Vulkan(None), &[]), None);
    }
}
