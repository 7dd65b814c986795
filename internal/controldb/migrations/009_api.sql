-- Kept for api.
SELECT 1;
