//! The same as shaders, one workgroup a position: both softmaxes, then the sum of what [`DIFFER`] says of p and q.

use super::super::Shaders;
use super::super::logits::shader::{DIFFER, chunks, position, project, space};
use crate::shader::{Call, Elem, Plan, Unfit};

pub const KERNEL: Shaders = Shaders { version: 1, plan: forward, tolerance: 1e-6 };

const BODY: &str = "
    var all_p = none(1.0);
    var all_q = none(1.0);
    var squares = vec2(0.0, 0.0);
    for (var c = lane; c < p.vocab; c += 256u) {
        let t = teacher(r, c);
        let z = student(r, c);
        all_p = seen(all_p, t);
        all_q = seen(all_q, z);
        squares = pair_add(squares, (t - z) * (t - z));
    }
    let by_t = softmax(all_p, lane);
    let by_z = softmax(all_q, lane);
    let between = offset(by_t, by_z);
    var kl = vec2(0.0, 0.0);
    for (var c = lane; c < p.vocab; c += 256u) {
        let t = teacher(r, c);
        let z = student(r, c);
        kl = pair_add(kl, differ(at(by_t, t), at(by_z, z), (z - t) + between).y);
    }
    kl = whole(kl, lane);
    squares = whole(squares, lane);
    if (lane == 0u) {
        set_out(r, 0u, kl);
        set_out(r, 1u, squares / f32(p.vocab));
    }";

fn forward(plan: &mut Plan, call: Call) -> Result<(), Unfit> {
    let (args, out) = (call.args, call.out);
    let vocab = args[1].rows;
    let chunks = chunks(plan, out.rows, vocab, &[out])?;
    let (teacher, student) =
        (space(plan, &chunks, Elem::F32, vocab)?, space(plan, &chunks, Elem::F32, vocab)?);
    for chunk in &chunks {
        let teacher = project(plan, [&args[0], &args[1]], chunk, &teacher)?;
        let student = project(plan, [&args[2], &args[3]], chunk, &student)?;
        let source = position("divergence")
            .with(DIFFER)
            .read("teacher", &teacher)
            .read("student", &student)
            .write("out", &out.rows(chunk.clone()))
            .u32("vocab", vocab)
            .body(BODY);
        plan.run(source, chunk.len());
    }
    Ok(())
}
