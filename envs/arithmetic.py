"""Arithmetic: an expression as digit tokens, its value as digit tokens, least significant first.

Answers have a fixed width (padding zeros, then the sign where values may be negative), so that exactly one string is
right and log p of a direct answer is that string's log-probability. A wrong token ends the rollout: the answer can no
longer become right. With a scratchpad the policy first writes tokens of its own, the latent z of the paper, then the
ANSWER marker, then the answer; many rollouts then succeed, and pass rates are sampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from maxrl_bench.envs import options
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import TokenContexts, check_actions, check_indices, draw_instance

TOKENS = "0123456789+-*=>"
PLUS, MINUS, TIMES, EQUALS, ANSWER = range(10, 15)
OPERATIONS = {"+": (PLUS,), "-": (MINUS,), "*": (TIMES,), "mixed": (PLUS, MINUS, TIMES)}
MAX_ANSWER_DIGITS = 18  # what int64 holds


@dataclass(frozen=True)
class Expression:
    """Operands joined by operator tokens, evaluated with the usual precedence."""

    operands: tuple[int, ...]
    operators: tuple[int, ...]

    def value(self) -> int:
        """The value of the expression."""
        total, term = 0, self.operands[0]
        for operator, operand in zip(self.operators, self.operands[1:], strict=True):
            if operator == TIMES:
                term *= operand
            else:
                total, term = total + term, operand if operator == PLUS else -operand
        return total + term


@dataclass(frozen=True)
class Answers:
    """The verifier. A state is (row of the instance, digits of the answer given so far; -1 while on the scratchpad).

    `answers` [B, W] holds the right actions; `marker` is the action that ends the scratchpad, None without one.
    """

    answers: np.ndarray
    marker: int | None

    def start(self) -> np.ndarray:
        """The states [B, 2] before the first action."""
        rows = np.arange(len(self.answers))
        return np.stack([rows, np.full_like(rows, 0 if self.marker is None else -1)], axis=1)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States [M, 2] and actions [M] -> next states [M, 2] and outcomes [M]."""
        rows, given = states.T
        answering = given >= 0
        right = ~answering | (self.answers[rows, given] == actions)
        begins = ~answering & (actions == self.marker) if self.marker is not None else np.zeros_like(answering)
        given = given + (answering | begins)
        complete = given == self.answers.shape[1]
        outcome = np.select([~right, complete], [FAILED, SUCCEEDED], RUNNING).astype(np.int8)
        return np.stack([rows, given], axis=1), outcome


class Arithmetic:
    """Expressions of `operands` numbers of up to `digits` digits, every one drawn uniformly.

    operation: "+", "-", "*", or "mixed" (each operator drawn uniformly, usual precedence). modulus: answers are taken
    modulo this number (0: plain integers). scratchpad: latent tokens before the answer; demonstrations then work out
    the expression with more and more of its digits. Expressions that differ only in the order of the operands of a sum
    or product are always in the same split.
    Raises ValueError on an unknown operation, sizes out of range, or answers of more than 18 digits.
    """

    family = "arithmetic"

    def __init__(
        self, operation: str = "+", digits: int = 2, operands: int = 2, modulus: int = 0, scratchpad: bool = False
    ):
        self._operators = OPERATIONS[options.one_of("operation", operation, tuple(OPERATIONS))]
        self._digits = options.integer("digits", digits, 1, 9)
        self._operands = options.integer("operands", operands, 2, 8)
        self._modulus = options.integer("modulus", modulus, 0, 10**9)
        if modulus == 1:
            raise ValueError("option 'modulus' must be 0 (plain integers) or at least 2: modulo 1 every answer is 0")
        self._scratchpad = options.flag("scratchpad", scratchpad)
        greatest = 10**digits - 1
        if modulus:
            bound = modulus - 1
        elif TIMES in self._operators:
            bound = greatest**operands
        else:
            bound = greatest * (operands if operation == "+" else operands - 1)
        self._width = len(str(bound))
        self._signed = MINUS in self._operators and not modulus
        if self._width > MAX_ANSWER_DIGITS:
            raise ValueError(
                f"{operands} operands of {digits} digits give answers of {self._width} digits under '{operation}'; "
                f"at most {MAX_ANSWER_DIGITS} are accepted"
            )
        workings = (operands - 1) * digits - 1
        if scratchpad and not workings:
            raise ValueError("option 'scratchpad': two operands of one digit leave nothing to work out")
        answer_length = self._width + self._signed
        self.horizon = answer_length * (1 + workings) + 1 if scratchpad else answer_length
        signs = [PLUS, MINUS] if self._signed else []
        self._actions = [*range(10), *signs, *([ANSWER] if scratchpad else [])]
        self.num_actions = len(self._actions)
        self.exact = not scratchpad
        self.contexts = TokenContexts(len(TOKENS), operands * (digits + 1) + self.horizon)
        self.name = f"arithmetic({operation}, {operands}x{digits})"
        # Names the space of instances: the same with and without a scratchpad.
        self._space = f"arithmetic {operation} {digits} {operands} {modulus}"

    def _propose(self, rng: np.random.Generator) -> Expression:
        operands = tuple(rng.integers(0, 10**self._digits, self._operands).tolist())
        if len(self._operators) == 1:
            return Expression(operands, self._operators * (self._operands - 1))
        chosen = rng.integers(0, len(self._operators), self._operands - 1).tolist()
        return Expression(operands, tuple(self._operators[i] for i in chosen))

    @staticmethod
    def _key(expression: Expression) -> bytes:
        kinds = set(expression.operators)
        commutes = len(kinds) == 1 and MINUS not in kinds
        operands = sorted(expression.operands) if commutes else expression.operands
        return np.array([*operands, *expression.operators], np.int64).tobytes()

    def _draw(self, split: str, index: int) -> Expression:
        return draw_instance(self._space, split, index, self._propose, self._key)

    def _spell(self, value: int) -> list[int]:
        """A value as actions: digits, least significant first, then the sign where there may be one."""
        if self._modulus:
            value %= self._modulus
        digits = [int(digit) for digit in reversed(f"{abs(value):0{self._width}d}")]
        return [*digits, 11 if value < 0 else 10] if self._signed else digits

    def _working(self, expression: Expression) -> list[int]:
        """Intermediate values for the scratchpad: the expression's, with one more digit of one more operand each."""
        written: list[int] = []
        for j in range(1, self._operands):
            for i in range(1, self._digits + 1):
                shown = expression.operands[j] % 10**i
                beginning = Expression((*expression.operands[:j], shown), expression.operators[:j])
                written += self._spell(beginning.value())
        return written[: self.horizon - 1 - len(self._spell(0))]

    def batch(self, split: str, indices: Sequence[int]) -> TokenBatch:
        """The instances at these indices of a split. Raises ValueError on an unknown split or a bad index."""
        expressions = [self._draw(split, index) for index in check_indices(indices)]
        answers = np.array([self._spell(expression.value()) for expression in expressions])
        marker = self.num_actions - 1 if self._scratchpad else None
        demonstrations = answers
        if marker is not None:
            workings = [[*self._working(expression), marker] for expression in expressions]
            demonstrations = np.concatenate([np.array(workings), answers], axis=1)
        return TokenBatch(
            prompts=torch.from_numpy(self._prompts(expressions)),
            verifier=Answers(answers, marker),
            horizon=self.horizon,
            actions=torch.tensor(self._actions),
            demonstrations=torch.from_numpy(demonstrations),
            solutions=None if self._scratchpad else lambda: (np.arange(len(answers)), answers),
        )

    def _prompts(self, expressions: list[Expression]) -> np.ndarray:
        """The prompts [B, operands * (digits + 1)]: as written, with leading zeros and an equals sign."""
        numbers = np.array([expression.operands for expression in expressions])
        digits = numbers[:, :, None] // 10 ** np.arange(self._digits - 1, -1, -1) % 10
        joints = np.array([[*expression.operators, EQUALS] for expression in expressions])
        return np.concatenate([digits, joints[:, :, None]], axis=2).reshape(len(expressions), -1)

    def render(self, split: str, index: int, actions: Sequence[int]) -> str:
        """The expression, what the policy wrote (least significant digit first), and the right value."""
        expression = self._draw(split, index)
        prompt = "".join(TOKENS[token] for token in self._prompts([expression])[0])
        written = "".join(TOKENS[self._actions[action]] for action in check_actions(actions, self.num_actions))
        value = expression.value() % self._modulus if self._modulus else expression.value()
        right = "".join(TOKENS[self._actions[action]] for action in self._spell(value))
        modulo = f" modulo {self._modulus}" if self._modulus else ""
        return f"{prompt} {written or '(nothing)'}\n{value}{modulo}, written {right} (last digit first)"
