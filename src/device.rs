//! `--device auto|cpu|vulkan[:N]`

use crate::output::{Exit, Failure};
use minic_runtime::device::Device;
use minic_runtime::device::cpu::Cpu;
use std::str::FromStr;

/// Where a run computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The best one there is.
    #[default]
    Auto,
    Cpu,
    /// The adapter of this number, or the first one.
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
    /// The device that it names.
    pub fn open(self) -> Result<Box<dyn Device>, Failure> {
        self.available()?;
        Ok(Box::new(Cpu))
    }

    /// Refuses what this version has not.
    pub fn available(self) -> Result<(), Failure> {
        match self {
            Choice::Auto | Choice::Cpu => Ok(()),
            Choice::Vulkan(_) => Err(Failure::new(Exit::Input, "this version of minic has no Vulkan device")
                .help("leave `--device` out, or say `--device cpu`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Choice;

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
    }
}
