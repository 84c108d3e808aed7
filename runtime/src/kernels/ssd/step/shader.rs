//! The same as shaders: one invocation a sequence and head for what hangs on dt, then one a channel, which goes over the
//! states of that channel.

use super::super::chunk::Sizes;
use super::super::shader::{SOFTPLUS, limits};
use crate::kernels::Shaders;
use crate::shader::common::LANES;
use crate::shader::{Call, Elem, Plan, Source, Unfit, cuts};

pub const STEP: Shaders = Shaders { version: 1, plan, tolerance: 2e-6 };

fn plan(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (s, args, out) = (Sizes::of(call.op), call.args, call.out);
    let [x, dt, b, c] = [0, 1, 2, 3].map(|i| &args[i]);
    let [dt_bias, a_log, d] = [4, 5, 6].map(|i| args[i].flat());
    let states = &args[7];
    // dt after softplus and limits, and the decay.
    let steps = plan.scratch(Elem::F32, out.rows, 2 * s.heads);
    for rows in cuts(&[x, dt, b, c, states, &steps, out], out.rows, 1, plan.caps)? {
        let of = |mat: &crate::shader::Mat| mat.rows(rows.clone());
        let count = rows.len() * s.heads;
        let source = Source::new("ssd_step_decays", LANES)
            .read("dt", &of(dt))
            .read("dt_bias", &dt_bias)
            .read("a_log", &a_log)
            .write("steps", &of(&steps))
            .u32("heads", s.heads)
            .u32("count", count);
        let source = limits(source, s).with(SOFTPLUS).body(&format!(
            "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let r = at / p.heads;
    let h = at % p.heads;
    var step = softplus(dt(r, h) + dt_bias(0u, h));
    if (step < p.lo) {{ step = p.lo; }}
    if (step > p.hi) {{ step = p.hi; }}
    set_steps(r, h, step);
    set_steps(r, p.heads + h, exp(-exp(a_log(0u, h)) * step));"
        ));
        plan.run(source, count.div_ceil(LANES));
        let count = rows.len() * s.heads * s.head_dim;
        let source = Source::new("ssd_step", LANES)
            .read("x", &of(x))
            .read("b", &of(b))
            .read("c", &of(c))
            .read("d", &d)
            .read("steps", &of(&steps))
            .write("states", &of(states))
            .write("out", &of(out))
            .u32("heads", s.heads)
            .u32("head_dim", s.head_dim)
            .u32("state", s.state)
            .u32("of_group", s.heads_of_group())
            .u32("count", count)
            .body(&format!(
                "    let at = group * {LANES}u + lane;
    if (at >= p.count) {{ return; }}
    let channel = at % (p.heads * p.head_dim);
    let r = at / (p.heads * p.head_dim);
    let h = channel / p.head_dim;
    let of_group = h / p.of_group * p.state;
    let decay = steps(r, p.heads + h);
    let input = steps(r, h) * x(r, channel);
    var y = d(0u, h) * x(r, channel);
    var place = h * p.state * p.head_dim + channel % p.head_dim;
    for (var n = 0u; n < p.state; n++) {{
        let value = decay * states(r, place) + input * b(r, of_group + n);
        set_states(r, place, value);
        y += value * c(r, of_group + n);
        place += p.head_dim;
    }}
    set_out(r, channel, y);"
            ));
        plan.run(source, count.div_ceil(LANES));
    }
    Ok(())
}
