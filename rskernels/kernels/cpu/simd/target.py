"""What the processor that is compiled for can do, which LLVM tells by what it emits."""

import llvmlite.binding as llvm
from numba.core.registry import cpu_target


def assembly_of(ir_text):
    """Return the assembly of LLVM's IR for the processor that Numba compiles for."""
    triple, processor, features = cpu_target.target_context.codegen().magic_tuple()
    target = llvm.Target.from_triple(triple)
    machine = target.create_target_machine(cpu=processor, features=features)
    return machine.emit_assembly(llvm.parse_assembly(ir_text))
