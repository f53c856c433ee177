"""Architecture search: small networks whose vectors find what they should in the cloud's gallery.

After CMP-NAS (Duggal et al. 2021): one supernet holds all candidates (Guo et al. 2020), and an
evolution ranks them by a reward that looks at both searches, edge in edge and edge in cloud.
"""
