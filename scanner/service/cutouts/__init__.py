"""Cutouts of single candidates: found where they were kept or cut again, drawn, written as FITS."""
