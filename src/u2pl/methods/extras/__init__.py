"""Parts that the papers named by a method do not have: refiners of the teacher's output, and further losses."""
