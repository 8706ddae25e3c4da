"""Model families: one file each. A family reads its part of model.yaml, checks it, predicts and describes itself.

`open_family` finds the class by the key `family` of model.yaml: every module of this folder is imported, and a class
registers itself when it is defined. So a new family is one new file, which has the family's name.
"""
