"""Finds functions in what objdump prints, their innermost loops, and what instructions those hold."""

import re
import subprocess
from dataclasses import dataclass, field

# The registers that code for each instruction set should fill.
REGISTERS = {"baseline": "xmm", "avx2": "ymm", "avx512": "zmm"}

FUNCTION = re.compile(r"^([0-9a-f]+) <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t(?:(?:rep|repz|repnz|lock|bnd|data16|cs|ds|notrack) )*([a-z][a-z0-9]*)\s*(.*)$")
TARGET = re.compile(r"^([0-9a-f]+) <")
RELOCATION = re.compile(r"\t[0-9a-f]+: R_X86_64_\w+\t(?:\.text\.)?(.*?)(?:[-+]0x[0-9a-f]+)?$")


@dataclass
class Function:
    name: str
    instructions: list = field(default_factory=list)  # of (address, mnemonic, operands)
    callees: list = field(default_factory=list)  # names of the functions that it calls

    def innermost_loops(self):
        """Instructions between a backward jump and its target, where no other backward jump lies between them."""
        addresses = {address for address, _, _ in self.instructions}
        loops = set()
        for address, mnemonic, operands in self.instructions:
            target = TARGET.match(operands)
            if mnemonic.startswith("j") and target:
                start = int(target[1], 16)
                if start <= address and start in addresses:
                    loops.add((start, address))
        for start, end in sorted(loops):
            inner = any((s, e) != (start, end) and start <= s and e <= end for s, e in loops)
            if not inner:
                yield [i for i in self.instructions if start <= i[0] <= end]


def disassemble(path):
    """All functions of an object file, a library or a program, with demangled names."""
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", "--reloc", "--wide", path]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions = []
    for line in output.splitlines():
        if heading := FUNCTION.match(line):
            functions.append(Function(heading[2]))
        elif functions and (instruction := INSTRUCTION.match(line)):
            address, mnemonic, operands = instruction.groups()
            relocation = RELOCATION.search(operands)
            if relocation:
                operands = operands[: relocation.start()]
                if mnemonic in ("call", "jmp"):
                    functions[-1].callees.append(relocation[1])
            functions[-1].instructions.append((int(address, 16), mnemonic, operands))
    # Names in relocations are not demangled where they are names of sections.
    mangled = sorted({callee for function in functions for callee in function.callees})
    demangled = subprocess.run(["c++filt"], input="\n".join(mangled), check=True, capture_output=True, text=True).stdout
    names = dict(zip(mangled, demangled.splitlines()))
    for function in functions:
        function.callees = [names[callee] for callee in function.callees]
    return functions


@dataclass
class Verdict:
    hot: int = 0  # instructions of the hot loop
    packed: int = 0  # those of them that do what the loop is for, on whole registers
    problem: str = ""


def judge(function, wanted, registers):
    """Whether a loop of the function does what it is for on whole registers: by far most of that must be so.

    `wanted` matches the mnemonics, without the `v` of AVX, of the instructions that the loop is for. The hot loop is the
    innermost one with the most of them on whole registers.
    """
    best = Verdict(problem=f"no innermost loop has {wanted} on {registers} registers")
    pattern = re.compile(f"v?(?:{wanted})$")
    for loop in function.innermost_loops():
        matching = [operands for _, mnemonic, operands in loop if pattern.match(mnemonic)]
        packed = sum(f"%{registers}" in operands for operands in matching)
        if packed <= best.packed:
            continue
        best = Verdict(hot=len(loop), packed=packed)
        calls = [operands for _, mnemonic, operands in loop if mnemonic.startswith("call")]
        if calls:
            best.problem = f"its hot loop calls a function: {calls[0]}"
        elif 2 * packed < len(matching):
            best.problem = f"only {packed} of {len(matching)} of {wanted} are on {registers} registers"
    return best
