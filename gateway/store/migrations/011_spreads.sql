-- How often each value came, to two digits, as JSON: {"1.2e+00": 3}. Percentiles are made of these.
ALTER TABLE hourly_sum ADD COLUMN latency_spread TEXT;
ALTER TABLE hourly_sum ADD COLUMN tokens_per_second_spread TEXT;
ALTER TABLE hourly_sum ADD COLUMN time_to_first_token_spread TEXT;
UPDATE span_hour SET summed = 0 WHERE summed <> 0;
