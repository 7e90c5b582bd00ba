"""The one idea of this suite: successes are counted, a table turns counts into weights, weights times scores are the
gradient. Here is one step of it, twice on the same rollouts: by the textbook, rollout by rollout, and by the engine,
which holds counts in place of rollouts.

    python examples/one_step.py
"""

from collections import Counter

import numpy as np
import torch

from maxrl_bench import advantages, bind, make_task
from maxrl_bench.rollouts.graphs import SUCCESS, GraphRollouts
from maxrl_bench.rollouts.policies import make_policy

OBJECTIVE, B, N = "maxrl_alg1", 4, 32  # B instances, N rollouts of each
torch.set_num_threads(1)  # the fastest for small networks

# A task, four instances of it, and a base policy: some supervised steps, so that a few rollouts succeed.
task = make_task("fourrooms")
batch = task.batch("train", range(B))
policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0)).double()
optimizer = torch.optim.Adam(policy.parameters(), lr=0.003)
for _ in range(20):
    optimizer.zero_grad()
    batch.demonstration_loss(policy).backward()
    optimizer.step()

# N rollouts of every instance, one after another: what was seen and done, and the reward, 0 or 1.
generator = torch.Generator().manual_seed(0)
rollouts, rewards = [], torch.zeros(B, N, dtype=torch.float64)
for instance, j in np.ndindex(B, N):
    state, observations, actions = batch.start[instance], [], []
    while state >= 0 and len(actions) < batch.horizon:
        observations.append(batch.observation_of[state])
        with torch.no_grad():
            probs = policy.log_probs(batch.observations[observations[-1:]])[0].exp()
        actions.append(int(torch.multinomial(probs, 1, generator=generator)))
        state = batch.successor[state, actions[-1]]  # negative where the rollout ends
    rollouts.append((observations, actions))
    rewards[instance, j] = float(state == SUCCESS)

# The same rollouts for the engine: how many take an action at an observation, and how many of those succeed.
count, succeeded = Counter(), Counter()
for (instance, j), (observations, actions) in zip(np.ndindex(B, N), rollouts, strict=True):
    for observation, action in zip(observations, actions, strict=True):
        count[instance, observation, action] += 1
        succeeded[instance, observation, action] += int(rewards[instance, j])
edges = np.array([(*edge, count[edge], succeeded[edge]) for edge in count]).T
names = ("instance", "observation", "action", "count", "through")
successes = rewards.sum(1).long().numpy()
columns = dict(zip(names, edges, strict=True))
read = len(batch.observations)  # by the network
counts = GraphRollouts(batch, policy, N, read, successes=successes, smooth=None, **columns)

# The textbook: rewards [B, N] are 0 or 1; an instance's number of successes decides the weights of its rollouts.
log_probs = torch.stack([policy.log_probs(batch.observations[o])[range(len(a)), a].sum() for o, a in rollouts])
loss = -(advantages(rewards, OBJECTIVE) * log_probs.view(B, N)).mean()
textbook = torch.autograd.grad(loss, list(policy.parameters()))

# The engine: two weights per instance, and counts. (In training `batch.sample` draws counts without any rollout.)
on_success, on_failure = bind(OBJECTIVE, N).weights(counts.successes)
loss = -counts.surrogate(on_success, on_failure)
engine = torch.autograd.grad(loss, list(policy.parameters()))

largest = max(float(gradient.abs().max()) for gradient in textbook)
difference = max(float((ours - theirs).abs().max()) for ours, theirs in zip(engine, textbook, strict=True))
print(f"successes among {N} rollouts of each of {B} instances: {successes.tolist()}")
print(f"contexts: {counts.actions_taken} in the rollouts, at most {counts.contexts_evaluated} read by the engine")
print(f"largest entry of the gradient {largest:.3g}, largest difference between the two {difference:.1g}")
if largest == 0 or difference > 1e-12 * largest:  # float64, sums of some thousand terms
    raise SystemExit("the two gradients differ")
