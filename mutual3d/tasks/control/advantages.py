"""How much better an action was than what the policy does on average: generalised advantage estimation."""

import torch


def estimate_advantages(
    rewards_TN: torch.Tensor,
    values_TN: torch.Tensor,
    next_values_TN: torch.Tensor,
    is_end_TN: torch.Tensor,
    is_cut_TN: torch.Tensor,
    *,
    discount: float,
    trace: float,
) -> torch.Tensor:
    """Advantages T, N of T steps of N games (Schulman et al., "High-dimensional continuous control using generalized advantage
    estimation", 2016, Eq. 11 and 16; PPO, Eq. 11 and 12).

    A_t = sum over l >= 0 of (discount * trace)^l delta_{t+l}, with delta_t = r_t + discount * V(s_{t+1}) - V(s_t); the sum stops
    with the roll-out, and where a game is cut.

    rewards_TN, values_TN: of step t, and of the state that it is taken in. next_values_TN: of the state that follows it, which is
    not that of row t + 1 where a new game begins there. is_end_TN: bool; what follows is worth nothing, since the game is over.
    is_cut_TN: bool; row t + 1 belongs to another game, or follows an end: every end is cut. trace: lambda.
    """
    deltas = rewards_TN + discount * next_values_TN * ~is_end_TN - values_TN
    advantages = torch.zeros_like(deltas)
    later = torch.zeros_like(deltas[0])
    for t in range(len(deltas) - 1, -1, -1):
        later = deltas[t] + discount * trace * later * ~is_cut_TN[t]
        advantages[t] = later
    return advantages
