"""List and describe models, data sets, methods and other components."""

RANK = 110
