"""The text of a suite of four quarters: two attacks, the second to be added, and two seeds."""

SUITE = """
title = "Quarters"
description = "In which quarter is the blob?"
seeds = 2
count_per_class = 8
memory_gb = 1

[targets.quarters]
private = "data:quarters.npz"
image_shape = [1, 16, 16]
architecture = "resnet10"
width = 4
step_count = 60
judge_steps = 40
disjoint_share = 0.3
show_private = true

[public.blobs]
source = "data:blobs.npz"

[attacks.weak]
attack = "patch-mi"
step_count = 8
attack_weight = 1
students = false
weights = false
selection = false

[[published]]
attack = "weak"
target = "quarters"
public = "blobs"
judge_top1 = 0.4754
note = "of another problem"

[small]
note = "fewer steps"
seeds = 1
[small.attacks.weak]
step_count = 4
"""
ADDED = """
[attacks.strong]
attack = "patch-mi"
step_count = 30
attack_weight = 3
students = false
weights = false
selection = false

[[curves]]
title = "Over the attack's weight"
along = "attack_weight"
attacks = ["weak", "strong"]
scores = ["judge_top1", "coverage"]
"""
WEAK, STRONG = "quarters/weak/blobs/none", "quarters/strong/blobs/none"
