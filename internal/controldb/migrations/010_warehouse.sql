-- Kept for warehouse.
SELECT 1;
