"""Optional parts that are not in the methods' papers: refiners of the teacher's output, and further losses."""
