"""Long-CLIP: a CLIP whose text tower reads long captions."""
