-- Kept for catalog.
SELECT 1;
