"""MONAI Label: an app that trains on labelled and unlabelled images alike, and asks for the labels that help most.

Only ``app`` and the tasks import MONAI Label, which lives in an environment of its own (``make label-env``).
"""
