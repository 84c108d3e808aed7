//! A run on standard error: a live line on a terminal, plain lines and a heartbeat where it is piped.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use minic_runtime::events::{Event, Observer};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);

pub struct Progress<'a> {
    output: &'a Output,
    /// On a terminal.
    bar: Option<ProgressBar>,
    stage: Mutex<Stage>,
}

struct Stage {
    began: Instant,
    told: Instant,
}

impl<'a> Progress<'a> {
    pub fn new(output: &'a Output) -> Progress<'a> {
        let live = std::io::stderr().is_terminal() && !output.is_quiet();
        let bar = live.then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{msg}  {bar:32}  {pos}/{len}  {elapsed}, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let now = Instant::now();
        Progress { output, bar, stage: Mutex::new(Stage { began: now, told: now }) }
    }

    /// Takes the live line away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.remark(text)),
            None => self.output.remark(text),
        }
    }

    fn advance(&self, stage: &str, done: usize, total: usize) {
        if let Some(bar) = &self.bar {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            return;
        }
        let Ok(mut state) = self.stage.lock() else { return };
        if state.told.elapsed() < HEARTBEAT || done == total {
            return;
        }
        state.told = Instant::now();
        let left = state.began.elapsed().as_secs_f64() * (total - done) as f64 / done.max(1) as f64;
        self.output.remark(&format!("{stage}: {done}/{total}, about {left:.0} s left"));
    }
}

impl Observer for Progress<'_> {
    fn observe(&self, event: &Event) {
        match event {
            Event::StageStarted { stage, .. } => {
                let now = Instant::now();
                if let Ok(mut state) = self.stage.lock() {
                    *state = Stage { began: now, told: now };
                }
                if let Some(bar) = &self.bar {
                    bar.reset();
                    bar.set_message(stage.to_string());
                }
            }
            Event::Progress { stage, done, total } => self.advance(stage, *done, *total),
            Event::Note { stage, message } => self.line(&format!("{stage}: {message}")),
            Event::Missed { stage, reason } => self.line(&format!("{stage}: runs because {reason}")),
            Event::StageFinished { stage, seconds, cached, result, .. } if !result.is_empty() => {
                let how = if *cached { "cached".to_string() } else { format!("{seconds:.1} s") };
                self.line(&format!("{stage}: {result} ({how})"));
            }
            Event::RunFinished { .. } | Event::RunFailed { .. } | Event::RunStopped { .. } => self.clear(),
            Event::RunStarted { .. }
            | Event::Planned { .. }
            | Event::Saved { .. }
            | Event::StageWaits { .. }
            | Event::StageFinished { .. } => {}
        }
    }
}
