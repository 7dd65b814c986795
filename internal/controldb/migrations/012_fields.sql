-- Fields of the published API that are kept as they came.
SELECT 1;
