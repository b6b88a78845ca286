"""What the report says in its own words: names of the arms, what each number means, what does not follow.

Facts and sentences only, in one place, so that they can be read and tested as a whole.
"""

ARM_NAMES = {
    "held_out": "Real held-out images",
    "attack": "Reconstructions (the attack)",
    "unselected": "Reconstructions that nobody chose",
    "public_selected": "Public images the target likes best",
    "untrained_attack": "Generator trained without the target",
    "permuted_labels": "Reconstructions, labels shuffled",
    "random": "Random noise",
}
"""The arms of the control ladder, from the ceiling down, and how the report calls them."""

ARM_MEANINGS = {
    "held_out": "The ceiling: what the judges say of real images that the target was not trained on.",
    "attack": "The images under test.",
    "unselected": "As many that were drawn before the attack chose the surest among several.",
    "public_selected": "Picking without optimising: what choosing among the attacker's own images gives.",
    "untrained_attack": (
        "The same generator and prior, but the target's answer left out: what the prior alone gives."
    ),
    "permuted_labels": "The attack's own images held against other labels: agreement by chance.",
    "random": "What the judges say of images with nothing in them.",
}

SCORE_MEANINGS = {
    "consensus_top1": (
        "Consensus top-1",
        "Share of reconstructions that at least two judges give the class the attack aimed at. The main "
        "number here.",
    ),
    "judge_top1": (
        "Judge top-1",
        "The same for one judge at a time, averaged over the judges. Judges are classifiers that no attack "
        "ever saw.",
    ),
    "judge_top5": (
        "Judge top-5",
        "As above, but it is enough that the class is among a judge's first five. Of use with many classes "
        "only.",
    ),
    "confidence": ("Confidence", "Probability that the judges give to the class aimed at, averaged."),
    "worst_class_top1": (
        "Lowest class",
        "Judge top-1 of the class the attack did least well on. High: every class is reached, not just the "
        "average.",
    ),
    "target_top1": (
        "Target top-1",
        "The target's own opinion. Shown for completeness and never counted: an image can be tuned to "
        "please the very "
        "network it was tuned on, and show nothing.",
    ),
    "precision": (
        "Precision",
        "Share of reconstructions that lie among the real images in feature space. High: they look like the "
        "real ones.",
    ),
    "recall": (
        "Recall",
        "Share of real images that lie among the reconstructions. High: the variety of the class is there "
        "too.",
    ),
    "density": (
        "Density",
        "As precision, but counting how many real neighbourhoods each reconstruction falls in; 1 is what "
        "real images "
        "reach, and more is possible.",
    ),
    "coverage": (
        "Coverage",
        "Share of real images with a reconstruction in their neighbourhood. Robust to outliers; high: much "
        "of the class "
        "is shown.",
    ),
    "frechet_distance": (
        "Fréchet distance",
        "Distance between the two clouds of features, 0 for equal clouds. To be compared only within one "
        "extractor and "
        "one number of images.",
    ),
    "student_accuracy": (
        "Student accuracy",
        "A fresh network learns from the reconstructions alone and is tested on real held-out images. High: "
        "the pictures "
        "carry much of what the target's training set taught. Where the judges are low, it may be a copy of "
        "the target's function and no likeness.",
    ),
}
"""Score → (its name, what it says), in the order of the table."""

ACCESS_MEANINGS = {
    "white-box": "The attacker holds the model: weights, gradients and statistics.",
    "score": "The attacker sends images and receives the class scores.",
    "label": "The attacker sends images and receives the top class alone.",
}

RELEASE_MEANINGS = {
    "open-weights": "Anybody can download the model, so white-box attacks are within reach of all, for ever.",
    "public-api": "Anybody can query the model; the weights stay with its owner.",
    "internal": "Only the owner's staff and systems reach the model.",
}

UNSUPPORTED_READINGS = (
    "That a particular training photograph came back. The judges say that an image shows a class. A "
    "statement about "
    "single images would need the ratio ρ of “Class or individual?” to lie below 1 with its whole "
    "interval.",
    "That attacks which were not run would fail. A result speaks of the attacks in it, at the budget they "
    "had.",
    "That a model without a demonstrated exposure meets a legal standard, or that nobody can be identified "
    "from it. "
    "That is an assessment for which this report is one piece of evidence.",
    "That a defence ends model inversion. At most, named attacks had less success, at a stated accuracy.",
    "That the numbers hold for other models, other images or larger pictures: small digits say little about "
    "faces.",
    "That the target's own confidence counts as success, or that Fréchet distances of different extractors "
    "compare.",
)
"""Readings that the evidence does not carry, whatever the verdict."""

STANDING_LIMITS = (
    "Judges are classifiers too. Different architectures and seeds make a common error less likely, not "
    "impossible; "
    "look at the pictures.",
    "Intervals are 95 %. They cover the variation over classes, seeds and images of this audit, not over "
    "other "
    "trainings of the target.",
    "Images of one run are not independent of each other; n says how many units stand behind a number.",
)

MAPPING = (
    (
        "EDPB Opinion 28/2024, par. 34 and 43",
        "Getting personal data out of a model, directly or by queries, must be insignificantly likely for "
        "every person.",
        "Class by class; Summary (lowest class beside the mean)",
    ),
    (
        "EDPB Opinion 28/2024, par. 46",
        "What testing is due depends on who can reach the model.",
        "Threat model (release context)",
    ),
    (
        "EDPB Opinion 28/2024, par. 55",
        "Scope, number and quality of tests count; a passed test is evidence about the attacks that were "
        "run. Names "
        "attribute and membership inference, exfiltration, regurgitation, model inversion and "
        "reconstruction.",
        "What was tested",
    ),
    (
        "EDPB Opinion 28/2024, par. 58",
        "Documentation: threat model, measures taken, resistance shown.",
        "Threat model; How to reproduce",
    ),
    (
        "NIST AI 100-2 E2023, sec. 2.4.1",
        "Model inversion rebuilds representatives of a class, not training records as such.",
        "Class or individual?; Limits",
    ),
    (
        "NIST AI 100-2 E2023, sec. 2.4.5",
        "Mitigations are to be checked by measuring attacks as well; query limits can be worked around with "
        "resources.",
        "Controls; Cost to the attacker",
    ),
    (
        "MITRE ATLAS AML.T0024.001, Invert AI Model",
        "Rebuilding training data through the scores of an inference interface. White-box runs go beyond "
        "its text: they "
        "need the weights.",
        "Threat model (access)",
    ),
    (
        "OWASP Machine Learning Security Top 10, ML03:2023",
        "Model inversion attack: reverse-engineering the model to extract what it was trained on.",
        "The whole report",
    ),
    (
        "OWASP AI Exchange, model inversion and rate limit",
        "Rates rather than pass or fail; name the threats that were not tested; weigh queries against a "
        "rate limit.",
        "What was tested; Cost to the attacker",
    ),
)
"""(source, what it asks for or says, where in the report)."""
