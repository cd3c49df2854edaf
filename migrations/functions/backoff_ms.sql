-- Milliseconds to wait after failed attempt k: fixed, or baseDelay * 2^(k-1) * U[0.8, 1.2), never above maxDelay.
create or replace function backoff_ms(policy jsonb, k int)
returns bigint
language plpgsql volatile as $$
declare
    base double precision := (policy ->> 'baseDelay')::double precision;
    ceiling double precision := (policy ->> 'maxDelay')::double precision;
begin
    if policy ->> 'strategy' = 'fixed' then
        return base;
    end if;
    return least(ceiling, base * 2 ^ least(k - 1, 62) * (0.8 + 0.4 * random()));
end $$;
