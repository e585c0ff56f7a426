"""Checks that every loop which is meant to be vector code is so, for every instruction set of x86-64.

    check.py CONTROL_OBJECT LIBRARY... -- SOURCE_FOLDER

The first object holds loops of which it is known whether they pass: if the check does not tell them apart, it is
broken. See `table.py` for what is checked, and `../vector_code.sh`, which builds all of it.
"""

import pathlib
import re
import sys

from analysis import REGISTERS, disassemble, judge
from table import EXCUSED_PASSES, LOOPS, MICROKERNELS, MULTIPLY_ADD, PASSES, Row

# `Compiled<LANES, LOOP>` is in the name of every function that runs a copy of a loop.
COPY = re.compile(r"simd::Compiled<(?P<lanes>[^,]*), (?P<loop>.*)>")
# What a copy may call: what ends it, what moves memory with whatever the processor has, and what is scalar by its nature.
HARMLESS = re.compile(r"panic|_fail|mem(cpy|set|move)$|divide_by_zero|overflow|math::reduce_large$|unwind_resume")
SETS = {"Scalar128b": "baseline", "V3": "avx2", "V4": "avx512"}


def copy_of(function):
    """The instruction set and the loop that a function is a copy of, if it is one."""
    # The entry itself, not what was split off from it or calls it.
    if "::vectorize::imp" not in function.name and "simd::baseline::<" not in function.name:
        return None
    copy = COPY.search(function.name)
    if copy is None:
        return None
    lanes = copy["lanes"].rsplit("::", 1)[-1]
    return SETS[lanes], copy["loop"]


def check_loops(functions, rows, sets=tuple(REGISTERS)):
    """The problems, and lines of a table of what was found."""
    problems, lines, found = [], [], {}
    for function in functions:
        copy = copy_of(function)
        if copy is None:
            continue
        instruction_set, loop = copy
        row = next((row for row in rows if re.search(row.loop, loop)), None)
        if row is None:
            problems.append(f"{loop}: no row of the table describes this loop")
            continue
        found.setdefault(row, set()).add(instruction_set)
        if row.excuse and instruction_set in row.excused_sets:
            lines.append((short(loop), instruction_set, "excused: " + row.excuse))
            continue
        for callee in sorted(set(function.callees)):
            if not HARMLESS.search(callee):
                problems.append(f"{loop}, {instruction_set}: it calls {callee}, which is compiled for the baseline")
        verdict = judge(function, row.instructions, REGISTERS[instruction_set])
        if verdict.problem:
            problems.append(f"{loop}, {instruction_set}: {verdict.problem}")
        lines.append((short(loop), instruction_set, f"{verdict.packed:4} of {verdict.hot:4}"))
    for row in rows:
        for instruction_set in sets:
            if instruction_set not in found.get(row, ()):
                problems.append(f"{row.loop}: there is no copy of it for {instruction_set}")
    return problems, lines


def short(path):
    """A type without the modules it is in, nor lifetimes."""
    path = re.sub(r"'[a-z_0-9]+,? ?", "", path)
    return re.sub(r"(?:\w+(?:\[\w+\])?::)+(\w+)", lambda m: "::".join(m[0].split("::")[-2:]), path)


def check_microkernels(functions):
    problems, lines = [], []
    for instruction_set, pattern in MICROKERNELS.items():
        matching = [f for f in functions if re.search(rf"\b{pattern}\b", f.name) and "closure" not in f.name]
        if not matching:
            problems.append(f"no function matches {pattern}")
        for function in matching:
            verdict = judge(function, MULTIPLY_ADD, REGISTERS[instruction_set])
            if verdict.problem:
                problems.append(f"{function.name}: {verdict.problem}")
            lines.append((function.name, instruction_set, f"{verdict.packed:4} of {verdict.hot:4}"))
    return problems, lines


def check_passes(folder):
    """Whether the table knows every pass of the sources, and none that is gone."""
    text = "\n".join(path.read_text() for path in sorted(pathlib.Path(folder).rglob("*.rs")))
    passes = set(re.findall(r"^impl\b.*\bPass for (\w+)", text, re.MULTILINE))
    known = PASSES.keys() | EXCUSED_PASSES.keys()
    problems = [f"{name}: the table does not say which loops this pass runs" for name in sorted(passes - known)]
    problems += [f"{name}: the table speaks of a pass that is not there" for name in sorted(known - passes)]
    described = [row.loop for row in LOOPS] + ["microkernels"]
    for name, loops in PASSES.items():
        for loop in loops:
            if not any(row.startswith(loop) for row in described):
                problems.append(f"{name}: no row describes its loop {loop}")
    return problems


def check_control(functions):
    """The control's loops: only the first is as it should be."""
    rows = [Row(rf"control::{name}\b", MULTIPLY_ADD) for name in ("Sound", "Outlined", "Serial")]
    problems, _ = check_loops(functions, rows, sets=("avx2", "avx512"))
    calls = [p for p in problems if "it calls control::outlined" in p]
    if len(calls) != 2:
        raise SystemExit("vector_code: the check is broken: it does not see a call of the control")
    problems = [p for p in problems if p not in calls]
    expected = {(name, s) for name in ("Outlined", "Serial") for s in ("avx2", "avx512")}
    reported = {(m[1], m[2]) for p in problems if (m := re.match(r".*control::(\w+).*, (\w+): (?:no innermost|only)", p))}
    unknown, _ = check_loops(functions, rows[:1], sets=())
    if reported != expected or len(problems) != len(expected) or not any("no row" in p for p in unknown):
        raise SystemExit(f"vector_code: the check is broken: of the control it says\n" + "\n".join(problems + unknown))


def main():
    split = sys.argv.index("--")
    control, *libraries = sys.argv[1:split]
    check_control(disassemble(control))
    functions = [function for library in libraries for function in disassemble(library)]
    loop_problems, loop_lines = check_loops(functions, LOOPS)
    kernel_problems, kernel_lines = check_microkernels(functions)
    problems = loop_problems + kernel_problems + check_passes(sys.argv[split + 1])
    print("instructions that the loop is for, of all in the innermost hot loop:")
    for name, instruction_set, text in sorted(set(loop_lines)) + sorted(set(kernel_lines)):
        print(f"  {text}  {instruction_set:9} {name}")
    if problems:
        print(f"\n{len(problems)} problems:", *sorted(set(problems)), sep="\n  ")
        raise SystemExit(1)
    print("all of them are vector code; NEON is not looked at")


if __name__ == "__main__":
    main()
