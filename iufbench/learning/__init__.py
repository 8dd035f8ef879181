"""Building blocks for methods: the base strategy, memories, rehearsal, penalties, resumable state."""

from iufbench.learning.base import ReconstructionStrategy
from iufbench.learning.buffer import BalancedBudget, Budget
from iufbench.learning.context import Context, Uses
from iufbench.learning.memory_bank import MemoryBank
from iufbench.learning.quadratic import HeldWeights
from iufbench.learning.rehearsal import JointRehearsal, Rehearsal
from iufbench.support.fields import number

__all__ = [
    "BalancedBudget",
    "Budget",
    "Context",
    "HeldWeights",
    "JointRehearsal",
    "MemoryBank",
    "ReconstructionStrategy",
    "Rehearsal",
    "Uses",
    "number",
]
