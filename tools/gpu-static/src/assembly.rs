//! What the text of AMD's assembly tells: loops, and what is done in them.
//!
//! A backward branch closes a loop, which begins at the label that it goes to. Innermost loops are those without another one
//! inside. The hottest is taken to be the innermost loop with the most multiply-adds or, where none has any, with the most
//! instructions. Branches within a loop may skip some of its instructions; they are counted all the same.

/// Instructions and what kinds there are among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// All of them.
    pub instructions: u64,
    /// Arithmetic on vectors, one element per lane.
    pub vector: u64,
    /// Those of `vector` that multiply floating-point numbers and add.
    pub multiply_adds: u64,
    /// Loads of vectors from memory.
    pub loads: u64,
    /// The most such loads that are under way at once, if the instructions run in the order of the text. With 1, each is
    /// waited for before the next begins.
    pub in_flight: u64,
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// In the whole program.
    pub all: Count,
    /// In its hottest loop.
    pub hottest: Option<Count>,
}

/// The assembly among the texts of a pipeline.
pub fn text(texts: &[(String, String)]) -> Result<&str, String> {
    let found = texts.iter().find(|(name, _)| name == "Assembly");
    found.map(|(_, text)| text.as_str()).ok_or_else(|| {
        let names: Vec<&str> = texts.iter().map(|(name, _)| name.as_str()).collect();
        format!("the driver gives no text called `Assembly`, only {names:?}")
    })
}

/// Reads the assembly of a program.
pub fn profile(text: &str) -> Result<Profile, String> {
    let mut labels = Vec::new();
    let mut instructions: Vec<&str> = Vec::new();
    for line in text.lines() {
        let code = line.split(';').next().unwrap_or_default().trim();
        if let Some(label) = code.strip_suffix(':') {
            labels.push((label, instructions.len()));
        } else if !code.is_empty() {
            instructions.push(code);
        }
    }
    if !instructions.iter().any(|code| code.starts_with("s_endpgm")) {
        return Err("the assembly does not end as a program does".into());
    }
    let mut loops: Vec<(usize, usize)> = Vec::new();
    for (at, code) in instructions.iter().enumerate() {
        let Some(target) = branch_target(code) else {
            continue;
        };
        let place = labels.iter().find(|(label, _)| *label == target);
        let (_, start) = place.ok_or_else(|| format!("`{code}` goes to no label"))?;
        if *start > at {
            continue;
        }
        match loops.iter_mut().find(|(other, _)| other == start) {
            Some((_, end)) => *end = at,
            None => loops.push((*start, at)),
        }
    }
    let is_innermost = |(start, end): &&(usize, usize)| {
        let inside = |other: &&(usize, usize)| other.0 >= *start && other.1 <= *end;
        loops.iter().filter(inside).count() == 1
    };
    let innermost = loops.iter().filter(is_innermost);
    let counts = innermost.map(|(start, end)| count(&instructions[*start..=*end]));
    Ok(Profile {
        all: count(&instructions),
        hottest: counts.max_by_key(|c| (c.multiply_adds, c.instructions)),
    })
}

fn branch_target(code: &str) -> Option<&str> {
    let (name, target) = code.split_once(' ')?;
    let is_branch = name == "s_branch" || name.starts_with("s_cbranch_");
    is_branch.then(|| target.trim())
}

fn count(instructions: &[&str]) -> Count {
    let mut count = Count::default();
    let mut under_way = 0;
    for code in instructions {
        count.instructions += 1;
        // RDNA3 may issue two at once, in one line.
        for half in code.split(" :: ") {
            let name = half.split_whitespace().next().unwrap_or_default();
            count.vector += u64::from(name.starts_with("v_"));
            count.multiply_adds += u64::from(is_multiply_add(name));
        }
        let name = code.split_whitespace().next().unwrap_or_default();
        let from_memory = ["buffer_load", "global_load", "flat_load", "scratch_load"];
        if from_memory.iter().any(|prefix| name.starts_with(prefix)) {
            count.loads += 1;
            under_way += 1;
            count.in_flight = count.in_flight.max(under_way);
        } else if name == "s_waitcnt" {
            under_way = under_way.min(left_under_way(code));
        }
    }
    count
}

/// How many loads of vectors a wait leaves under way.
fn left_under_way(code: &str) -> u64 {
    let counter = code
        .split_once("vmcnt(")
        .and_then(|(_, rest)| rest.split_once(')'));
    counter
        .and_then(|(number, _)| number.parse().ok())
        .unwrap_or(u64::MAX)
}

fn is_multiply_add(name: &str) -> bool {
    let operation = name
        .strip_prefix("v_")
        .map(|rest| rest.trim_start_matches("dual_").trim_start_matches("pk_"));
    let kinds = ["fma", "mad_", "mac_", "dot2"];
    let is_float = ["_f16", "_f32", "_f64"].iter().any(|ty| name.contains(ty));
    is_float && operation.is_some_and(|op| kinds.iter().any(|kind| op.starts_with(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_without_a_loop_has_none() {
        let text = "BB0:\n\ts_cbranch_execz BB1 ; bf88\n\tv_add_f32_e32 v0, v1, v2 ; 06\nBB1:\n\ts_endpgm ; bf81\n";
        let profile = profile(text).expect("it is a program");
        assert_eq!(profile.hottest, None);
        let all = Count {
            instructions: 3,
            vector: 1,
            ..Count::default()
        };
        assert_eq!(profile.all, all);
    }

    #[test]
    fn the_hottest_loop_is_the_innermost_one_with_the_most_multiply_adds() {
        let text = "BB0:
            v_fma_f32 v0, v1, v2, v3
            v_fma_f32 v0, v1, v2, v3
        BB1:
            v_fma_f32 v0, v1, v2, v3
            v_fma_f32 v0, v1, v2, v3
            v_fma_f32 v0, v1, v2, v3
        BB2:
            buffer_load_dwordx4 v[4:7], v0, s[4:7], 0 offen
            s_waitcnt vmcnt(0)
            v_fmac_f32_e32 v0, v1, v2
            v_pk_fma_f16 v0, v1, v2, v3
            v_mad_u32_u24 v0, v1, v2, v3
            s_cbranch_scc1 BB2
            s_cbranch_scc0 BB1
        BB3:
            v_mov_b32_e32 v0, 0
            v_mov_b32_e32 v0, 0
            v_mov_b32_e32 v0, 0
            v_mov_b32_e32 v0, 0
            v_mov_b32_e32 v0, 0
            v_mov_b32_e32 v0, 0
            s_branch BB3
            s_endpgm";
        let profile = profile(text).expect("it is a program");
        let hottest = Count {
            instructions: 6,
            vector: 3,
            multiply_adds: 2,
            loads: 1,
            in_flight: 1,
        };
        assert_eq!(profile.hottest, Some(hottest));
    }

    #[test]
    fn two_ways_back_are_one_loop_and_two_operations_may_share_a_line() {
        let text = "BB0:
            v_dual_fmac_f32 v0, v1, v2 :: v_dual_mul_f32 v3, v4, v5
            s_cbranch_scc1 BB0
            v_nop
            s_branch BB0
            s_endpgm";
        let hottest = profile(text).expect("it is a program").hottest;
        let hottest = hottest.expect("there is one");
        assert_eq!(
            (hottest.instructions, hottest.vector, hottest.multiply_adds),
            (4, 3, 1)
        );
    }

    #[test]
    fn loads_are_in_flight_until_they_are_waited_for() {
        let in_flight = |lines: &[&str]| {
            let text = [lines, &["s_endpgm"]].concat().join("\n");
            profile(&text).expect("it is a program").all.in_flight
        };
        let (load, wait) = ("buffer_load_dword v2, v2", "s_waitcnt vmcnt(0)");
        assert_eq!(in_flight(&[]), 0);
        assert_eq!(in_flight(&[load, wait, load, wait, load]), 1);
        assert_eq!(
            in_flight(&[load, load, "s_waitcnt vmcnt(1) lgkmcnt(0)", load]),
            2
        );
        assert_eq!(in_flight(&[load, "s_waitcnt lgkmcnt(0)", load, load]), 3);
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(profile("").is_err() && profile("BB0:\n v_nop\n").is_err());
        assert!(profile("s_branch BB7\ns_endpgm").is_err());
    }
}
