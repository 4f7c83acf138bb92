"""Trained weights at work: prediction of single images, folders, and scores of a data set. Imports without torch."""
