//! `minic bench decode`: how fast models answer a request, side by side.

use crate::device::DeviceArgs;
use crate::eval;
use crate::output::{Exit, Failure, Output};
use crate::progress::Progress;
use crate::table::{Table, bytes};
use minic_runtime::decode::{Request, Speed, Spread, measure};
use minic_runtime::events::Watch;
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// Hugging Face folders, or `hf://org/name@revision`; the first is what the others are compared with
    #[arg(required = true, value_name = "CHECKPOINT")]
    checkpoints: Vec<PathBuf>,
    /// First tokens of a sequence
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 23))]
    input: u32,
    /// Tokens that come after them; of more than 24, 8 each are run with the shortest, the middle and the longest
    /// context, and the others are interpolated
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 23))]
    output: u32,
    /// Sequences, side by side
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    batch: u32,
    /// Rounds that are measured, after one that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..1000))]
    repeats: u32,
    #[command(flatten)]
    pub device: DeviceArgs,
}

pub fn run(args: &Args, output: &Output) -> Result<Exit, Failure> {
    let device = args.device.open(output)?;
    let [input, tokens, batch] = [args.input, args.output, args.batch].map(|n| n as usize);
    let request = Request { input, output: tokens, batch };
    let mut measured = Vec::new();
    for checkpoint in &args.checkpoints {
        let model = eval::open(checkpoint, output)?;
        let name = checkpoint.display().to_string();
        let progress = Progress::new(output);
        let watch = Watch::new(&name, &progress);
        let speed = measure(device.as_ref(), &model, request, args.repeats as usize, &watch);
        progress.clear();
        measured.push((name.clone(), speed?));
    }
    if output.json {
        let rows = measured.iter().map(|(name, speed)| {
            json!({ "checkpoint": name, "speed": speed, "ratio": ratio(speed, &measured[0].1) })
        });
        output.document(&json!({ "models": rows.collect::<Vec<_>>() }))?;
    } else {
        output.answer(&text(&device.kind(), &measured))?;
    }
    Ok(Exit::Done)
}

/// How many times the throughput of the first.
fn ratio(speed: &Speed, first: &Speed) -> f64 {
    speed.throughput.median / first.throughput.median
}

fn text(device: &str, measured: &[(String, Speed)]) -> String {
    let mut table = Table::new(&[
        "checkpoint",
        ">prefill tokens/s",
        ">decode tokens/s",
        ">latency s",
        ">throughput tokens/s",
        ">least .. most",
        ">states",
        ">ratio",
    ]);
    let rate = |spread: &Spread| figure(spread.median);
    for (name, speed) in measured {
        let Spread { min, max, .. } = speed.throughput;
        table.row(vec![
            name.clone(),
            rate(&speed.prefill),
            rate(&speed.decode),
            figure(speed.latency.median),
            rate(&speed.throughput),
            format!("{} .. {}", figure(min), figure(max)),
            bytes(speed.state_bytes),
            format!("{:.3}", ratio(speed, &measured[0].1)),
        ]);
    }
    let how = measured.first().map_or(String::new(), |(_, speed)| {
        let Request { input, output, batch } = speed.request;
        let steps = match speed.steps {
            all if all == output => String::new(),
            some => format!("; {some} of {output} steps were run, the others are interpolated"),
        };
        format!(
            "{device}\n{batch} x {input} tokens in, {batch} x {output} out: median of {} rounds{steps}\n\n",
            speed.repeats
        )
    });
    how + &table.render(|_, line| line)
}

/// Four digits.
fn figure(value: f64) -> String {
    let decimals = (3 - value.abs().max(1e-9).log10().floor() as i32).clamp(0, 6);
    format!("{value:.0$}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::figure;

    #[test]
    fn figures_have_four_digits() {
        let figures = [0.0, 0.012346, 0.98765, 9.8765, 123.456, 98765.4].map(figure);
        assert_eq!(figures, ["0.000000", "0.01235", "0.9877", "9.877", "123.5", "98765"]);
    }
}
