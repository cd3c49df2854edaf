-- Moves on the moment up to which a key has used one of its quotas (domain/quota.py): by ``need`` seconds at least and
-- ``want`` at most, as long as it stays within ``burst`` seconds of now. What is more than a burst is granted to who owes
-- nothing. granted: by how much, or 0; behind: how far ahead of now it is then.
--
-- A key that is gone is not held up here: whoever presents it is about to hear so.
create or replace function lease_quota(who text, what text, need float8, want float8, burst float8)
returns table (granted float8, behind float8)
language plpgsql as $$
#variable_conflict use_column
declare
    moment timestamptz;
    t timestamptz;
begin
    -- What a crash forgets of this is a moment's worth of requests.
    perform set_config('synchronous_commit', 'off', true);
    select q.used_until into moment from key_quotas q where q.prefix = who and q.quota = what for no key update;
    if not found then
        insert into key_quotas (prefix, quota)
        select k.prefix, what from keys k where k.prefix = who on conflict do nothing;
        select q.used_until into moment from key_quotas q where q.prefix = who and q.quota = what for no key update;
        if not found then
            granted := want; behind := 0; return next; return;
        end if;
    end if;
    t := clock_timestamp();
    moment := greatest(moment, t);
    behind := extract(epoch from moment - t);
    granted := case
        when need <= burst - behind + 0.000001 then greatest(least(want, burst - behind), need)  -- time has microseconds
        when behind = 0 then need else 0 end;
    if granted > 0 then
        update key_quotas q set used_until = moment + make_interval(secs => granted)
        where q.prefix = who and q.quota = what;
        behind := behind + granted;
    end if;
    return next;
end $$;
